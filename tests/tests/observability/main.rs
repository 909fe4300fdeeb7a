//! What coordinators, agents and commands tell about themselves, as a real Prometheus and a collector see it.

mod deployed;
mod recorder;
mod scene;
mod scrapes;
mod secrets;
mod traces;
