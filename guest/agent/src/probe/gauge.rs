//! When a row of probe results becomes a change: pure counting.

use crate::pb;
use crate::pb::probe::Kind;

/// The settings of a probe with Kubernetes' defaults filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    pub initial_delay_ms: u64,
    pub period_ms: u64,
    pub timeout_ms: u64,
}

impl Timing {
    pub fn of(probe: &pb::Probe) -> Self {
        let or = |value: u32, default: u64| if value == 0 { default } else { u64::from(value) };
        Self {
            initial_delay_ms: u64::from(probe.initial_delay_ms),
            period_ms: or(probe.period_ms, 10_000).max(100),
            timeout_ms: or(probe.timeout_ms, 1_000),
        }
    }
}

/// What one more result means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The state that the probe has come to, when it changed.
    pub change: Option<bool>,
    /// It is a failure after none.
    pub first_failure: bool,
}

/// Counts the results of one probe.
#[derive(Clone, Debug)]
pub struct Gauge {
    success_threshold: u32,
    failure_threshold: u32,
    /// None: not known yet (startup).
    state: Option<bool>,
    row: (bool, u32),
}

impl Gauge {
    /// As Kubernetes: not ready until proven, alive until proven otherwise, start unknown.
    pub fn new(probe: &pb::Probe) -> Self {
        let state = match probe.kind() {
            Kind::Startup => None,
            Kind::Liveness => Some(true),
            Kind::Readiness => Some(false),
        };
        let or = |value: u32, default: u32| if value == 0 { default } else { value };
        Self {
            success_threshold: or(probe.success_threshold, 1),
            failure_threshold: or(probe.failure_threshold, 3),
            state,
            row: (true, 0),
        }
    }

    pub fn count(&mut self, success: bool) -> Verdict {
        let same = self.row.0 == success && self.row.1 > 0;
        self.row = (success, if same { self.row.1.saturating_add(1) } else { 1 });
        let threshold = if success { self.success_threshold } else { self.failure_threshold };
        let reached = self.row.1 >= threshold && self.state != Some(success);
        if reached {
            self.state = Some(success);
        }
        Verdict { change: reached.then_some(success), first_failure: !success && !same }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gauge(kind: Kind, success_threshold: u32, failure_threshold: u32) -> Gauge {
        Gauge::new(&pb::Probe { kind: kind.into(), success_threshold, failure_threshold, ..Default::default() })
    }

    fn changes(gauge: &mut Gauge, results: &[bool]) -> Vec<Option<bool>> {
        results.iter().map(|result| gauge.count(*result).change).collect()
    }

    #[test]
    fn liveness_changes_at_the_threshold_and_only_once() {
        let mut gauge = gauge(Kind::Liveness, 1, 3);
        let found = changes(&mut gauge, &[true, false, false, true, false, false, false, false]);
        assert_eq!(found, [None, None, None, None, None, None, Some(false), None]);
    }

    #[test]
    fn readiness_starts_false_and_comes_and_goes() {
        let mut gauge = gauge(Kind::Readiness, 2, 1);
        let found = changes(&mut gauge, &[false, true, true, true, false, true, true]);
        assert_eq!(found, [None, None, Some(true), None, Some(false), None, Some(true)]);
    }

    #[test]
    fn startup_tells_success_and_failure() {
        assert_eq!(changes(&mut gauge(Kind::Startup, 1, 2), &[false, true]), [None, Some(true)]);
        assert_eq!(changes(&mut gauge(Kind::Startup, 1, 2), &[false, false]), [None, Some(false)]);
    }

    #[test]
    fn only_the_first_failure_of_a_row_is_one() {
        let mut gauge = gauge(Kind::Liveness, 1, 3);
        let firsts: Vec<_> = [false, false, true, false].iter().map(|r| gauge.count(*r).first_failure).collect();
        assert_eq!(firsts, [true, false, false, true]);
    }

    #[test]
    fn nothing_set_means_kubernetes_defaults() {
        let timing = Timing::of(&pb::Probe::default());
        assert_eq!(timing, Timing { initial_delay_ms: 0, period_ms: 10_000, timeout_ms: 1_000 });
    }
}
