//! What a person gets wrong: one clear message that says what, where and what to do, the right exit code, nothing on
//! standard output, nothing changed, no password.
//!
//! Each case has the whole of its message beside it. `UPDATE_EXPECT=1 cargo test -p tests --test bad_input` writes them
//! anew; read what it wrote.

#![expect(
    clippy::needless_raw_string_hashes,
    reason = "the library writes the messages so"
)]
#![expect(clippy::too_many_lines, reason = "tables of cases with their messages")]

mod case;
mod database;
mod files;
mod fleet;
mod server;
mod settings;
