//! A line for each change: for logs and pipes.

use crate::command::rollout::board::{Board, Change};
use crate::command::rollout::text;
use crate::output;
use shared::rollout::view::{Assignment, AssignmentState, State, Wave};
use shared::rollout::work::Progress;
use std::time::{Duration, Instant};

/// How often a long step is spoken of.
const INTERVAL: Duration = Duration::from_secs(10);

/// What has been said.
#[derive(Debug, Default)]
pub(in crate::command::rollout) struct Lines {
    /// What holds the whole rollout up, as said last.
    standing: Option<(State, String)>,
    /// Why the next wave has not begun, as said last.
    next_wave: String,
    spoke_of_rows: Option<Instant>,
}

impl Lines {
    pub(super) fn show(&mut self, board: &Board, changes: &[Change]) {
        let rollout = &board.rollout;
        let standing = (rollout.state, rollout.reason.clone());
        let before = self.standing.replace(standing.clone());
        if before.as_ref() != Some(&standing) && is_news(before.map(|(state, _)| state), rollout.state) {
            output::data(&text::standing(rollout));
        }
        let at_work = |wave: &&Wave| wave.begun && wave.databases.waiting + wave.databases.running > 0;
        if let Some(next) = rollout.waves.iter().find(|wave| !wave.blocked.is_empty())
            && !rollout.waves.iter().any(|wave| at_work(&wave))
            && next.blocked != self.next_wave
        {
            output::data(&next.blocked);
            self.next_wave.clone_from(&next.blocked);
        }
        for change in changes {
            if let Some(line) = line(change.before.as_ref(), &change.after) {
                output::data(&line);
            }
        }
        let spoke = *self.spoke_of_rows.get_or_insert_with(Instant::now);
        if spoke.elapsed() >= INTERVAL && !board.rollout.state.is_ended() {
            self.spoke_of_rows = Some(Instant::now());
            output::data(&text::standing(&board.rollout));
            for of in board
                .assignments
                .values()
                .filter(|of| of.state == AssignmentState::Running)
            {
                output::data(&format!("{}: {}", of.database, text::detail(of)));
            }
        }
    }
}

/// Whether a rollout that came into a state is worth a line; its beginning and its end are told elsewhere.
fn is_news(before: Option<State>, now: State) -> bool {
    match now {
        State::Paused | State::Aborting => true,
        State::Running => before == Some(State::Paused),
        State::Done | State::Failed | State::Aborted => false,
    }
}

/// What a change is worth saying; nothing for rows that grow.
fn line(before: Option<&Assignment>, after: &Assignment) -> Option<String> {
    let name = &after.database;
    let news = match after.state {
        AssignmentState::Waiting => {
            // The same again is news as well, once another attempt has ended.
            let another = |before: &Assignment| {
                before.state == AssignmentState::Running || before.attempt != after.attempt
            };
            let is_new = |text: fn(&Assignment) -> &String| {
                !text(after).is_empty()
                    && before.is_none_or(|before| another(before) || text(before) != text(after))
            };
            let error_is_new = is_new(|of| &of.error);
            let stop_is_new = is_new(|of| &of.interrupted);
            let reason_is_new = before.is_none_or(|before| before.blocked != after.blocked);
            match (error_is_new, reason_is_new && !after.blocked.is_empty()) {
                (false, _) if stop_is_new => format!("interrupted: {}; {}", after.interrupted, after.blocked),
                (true, _) => format!(
                    "attempt {} failed: {}; {}",
                    after.attempt,
                    text::first_line(&after.error),
                    after.blocked
                ),
                (false, true) => format!("waiting: {}", after.blocked),
                (false, false) => return None,
            }
        }
        AssignmentState::Running => {
            let step = |of: &Assignment| of.progress.as_ref().map(place);
            let again = before.is_some_and(|before| {
                before.state == AssignmentState::Running && before.token == after.token
            });
            match (again, step(after), before.and_then(step)) {
                (false, _, _) => {
                    let agent = after
                        .agent
                        .as_ref()
                        .map_or(String::new(), |agent| format!(" on {agent}"));
                    format!("running{agent}, attempt {}", after.attempt)
                }
                (true, Some(now), earlier) if Some(&now) != earlier.as_ref() => text::detail(after),
                (true, _, _)
                    if after.agent_gone_since != before.and_then(|before| before.agent_gone_since) =>
                {
                    text::detail(after)
                }
                (true, Some(_) | None, _) => return None,
            }
        }
        AssignmentState::Done => format!("done: {}", text::detail(after)),
        AssignmentState::Failed => format!("failed: {}", text::detail(after)),
        AssignmentState::Skipped => text::detail(after),
        AssignmentState::Aborted => format!("the rollout was aborted: {}", text::aborted(after)),
    };
    let unchanged = after.state != AssignmentState::Waiting
        && after.state != AssignmentState::Running
        && before.is_some_and(|before| before.state == after.state);
    (!unchanged).then(|| format!("{name}: {news}"))
}

/// Where a progress is, rows aside.
fn place(of: &Progress) -> (Option<String>, u32) {
    (of.version.as_ref().map(ToString::to_string), of.step)
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::rollout::work::Summary;

    fn assignment(state: AssignmentState) -> Assignment {
        Assignment {
            database: "orders".try_into().unwrap(),
            wave: "rest".to_owned(),
            state,
            agent: Some("agent-a".try_into().unwrap()),
            attempt: 1,
            blocked: String::new(),
            error: String::new(),
            interrupted: String::new(),
            progress: None,
            progress_unknown: false,
            agent_gone_since: None,
            started_at: None,
            ended_at: None,
            summary: Summary::default(),
            token: Some(7),
        }
    }

    fn at(step: u32, rows: u64) -> Assignment {
        let progress = Progress {
            version: Some("002".parse().unwrap()),
            migration: "totals".to_owned(),
            step,
            steps: 3,
            title: "backfill orders".to_owned(),
            rows,
            ..Progress::default()
        };
        Assignment {
            progress: Some(progress),
            ..assignment(AssignmentState::Running)
        }
    }

    #[test]
    fn a_database_speaks_when_it_begins_at_each_step_and_when_it_ends() {
        let waiting = assignment(AssignmentState::Waiting);
        assert_eq!(line(None, &waiting), None);
        assert_eq!(
            line(Some(&waiting), &at(0, 0)).unwrap(),
            "orders: running on agent-a, attempt 1"
        );
        let step = line(Some(&at(1, 0)), &at(2, 0)).unwrap();
        assert_eq!(step, "orders: 002 totals: step 2 of 3: backfill orders");
        assert_eq!(
            line(Some(&at(2, 0)), &at(2, 5000)),
            None,
            "rows alone are not worth a line"
        );
        let mut done = assignment(AssignmentState::Done);
        done.summary = Summary {
            migrations: 1,
            steps: 3,
            rows: 5000,
            ..Summary::default()
        };
        assert_eq!(
            line(Some(&at(2, 0)), &done).unwrap(),
            "orders: done: 1 migration, 3 steps, 5,000 rows"
        );
        assert_eq!(line(Some(&done), &done), None);
    }

    #[test]
    fn a_wait_says_its_reason_once_and_a_failed_attempt_its_error() {
        let mut blocked = assignment(AssignmentState::Waiting);
        blocked.blocked = "no agent serves it".to_owned();
        assert_eq!(
            line(None, &blocked).unwrap(),
            "orders: waiting: no agent serves it"
        );
        assert_eq!(line(Some(&blocked), &blocked), None);
        let mut retry = blocked.clone();
        retry.error = "server down".to_owned();
        retry.blocked = "next attempt in 2 s".to_owned();
        let said = line(Some(&blocked), &retry).unwrap();
        assert_eq!(said, "orders: attempt 1 failed: server down; next attempt in 2 s");
        let mut later = retry.clone();
        later.blocked = "rollout xyz is at work on it".to_owned();
        assert_eq!(
            line(Some(&retry), &later).unwrap(),
            "orders: waiting: rollout xyz is at work on it"
        );
    }

    #[test]
    fn what_ends_an_attempt_again_is_said_again() {
        let mut stopped = assignment(AssignmentState::Waiting);
        stopped.interrupted = "agent-a stopped".to_owned();
        stopped.blocked = "next attempt in 1 s".to_owned();
        let said = "orders: interrupted: agent-a stopped; next attempt in 1 s";
        assert_eq!(line(None, &stopped).unwrap(), said);
        assert_eq!(line(Some(&stopped), &stopped), None);
        let mut at_work = at(1, 0);
        at_work.interrupted.clone_from(&stopped.interrupted);
        assert_eq!(line(Some(&at_work), &stopped).unwrap(), said);

        let mut failed = assignment(AssignmentState::Waiting);
        failed.error = "server down".to_owned();
        let mut again = failed.clone();
        again.attempt = 2;
        assert_eq!(line(Some(&failed), &failed), None);
        assert!(
            line(Some(&failed), &again)
                .unwrap()
                .contains("attempt 2 failed: server down")
        );
    }

    #[test]
    fn another_lease_is_a_new_beginning() {
        let mut again = at(1, 0);
        again.token = Some(8);
        again.attempt = 2;
        assert_eq!(
            line(Some(&at(2, 0)), &again).unwrap(),
            "orders: running on agent-a, attempt 2"
        );
    }
}
