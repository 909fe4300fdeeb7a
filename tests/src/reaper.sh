# Reads what a test process started; when the pipe ends, ends what is still there. See reaper.rs.
trap '' INT TERM HUP
declare -A processes folders
while IFS=' ' read -r what rest; do
    case $what in
        started) processes[${rest% *}]=${rest#* } ;;
        ended) unset "processes[$rest]" ;;
        made) folders[$rest]=1 ;;
        removed) unset "folders[$rest]" ;;
    esac
done

# The pid and those of all its descendants.
tree() {
    local stat pid line
    echo "$1"
    for stat in /proc/[0-9]*/stat; do
        { read -r line <"$stat"; } 2>/dev/null || continue
        pid=${line%% *}
        set -- "$1" ${line##*) } # after the name, which may hold anything: state, parent
        [ "$3" = "$1" ] && tree "$pid"
    done
}

all=
for pid in "${!processes[@]}"; do
    members=$(tree "$pid")
    all+=" $members"
    kill -CONT $members 2>/dev/null
    kill -"${processes[$pid]}" "$pid" 2>/dev/null
done
for _ in {1..30}; do
    kill -0 $all 2>/dev/null || break
    sleep 0.1
done
[ -n "$all" ] && kill -KILL $all 2>/dev/null
for folder in "${!folders[@]}"; do
    rm -rf -- "$folder"
done
