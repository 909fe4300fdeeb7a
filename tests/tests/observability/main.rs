//! What coordinators, agents and commands tell about themselves, as a real Prometheus and a collector see it.

mod scene;
mod scrapes;
mod traces;
