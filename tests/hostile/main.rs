//! Whatever can be handed over, inherited or written down wrongly, against the
//! built program: one clear line, the right status, no wrong byte, no hang.

mod case;
mod handed;
#[path = "../support/mod.rs"]
mod support;
mod tables;

use case::{Case, End::Says, LISTENING, check_all};
use tables::*;

#[test]
fn the_environment_is_doubted() {
    check_all(ENVIRONMENT, |&(listen, end)| Case {
        listen,
        end,
        ..LISTENING
    });
}

#[test]
fn every_descriptor_is_doubted() {
    check_all(DESCRIPTORS, |&(handed, redirect, end)| Case {
        handed,
        redirect,
        end,
        ..LISTENING
    });
    check_all(PAIRS, |&(handed, redirect, end)| Case {
        handed,
        listen: "LISTEN_PID=$$ LISTEN_FDS=2",
        redirect,
        end,
        ..LISTENING
    });
}

#[test]
fn a_client_on_stdin_reads_the_greeting_and_nothing_else() {
    check_all(STDIN, |&(handed, arguments, redirect, end)| Case {
        handed,
        listen: "",
        arguments,
        redirect,
        end,
        ..LISTENING
    });
}

#[test]
fn a_mode_that_does_not_fit_is_told_and_ends_the_client_cleanly() {
    check_all(MODES, |&(handed, setup, end)| Case {
        handed,
        setup,
        end,
        ..LISTENING
    });
}

#[test]
fn wrong_settings_are_told_where_they_are_wrong() {
    check_all(SETTINGS, |&(setup, end)| Case {
        setup,
        end,
        ..LISTENING
    });
}

#[test]
fn no_lie_about_the_service_manager_costs_a_greeting() {
    check_all(MANAGERS, |&(environment, end)| Case {
        environment,
        end,
        ..LISTENING
    });
}

#[test]
fn a_shortage_costs_no_greeting() {
    check_all(SHORTAGES, |&(setup, redirect, end)| Case {
        setup,
        redirect,
        end,
        ..LISTENING
    });
}

#[test]
fn an_instance_ends_whatever_is_in_its_way() {
    check_all(INSTANCES, |&(handed, setup, environment, redirect, end)| {
        Case {
            handed,
            setup,
            environment,
            redirect,
            end,
            ..LISTENING
        }
    });
}

#[test]
fn settings_that_turn_wrong_leave_the_old_ones_in_force() {
    check_all(RELOADS, |&(setup, change)| Case {
        setup,
        change,
        end: Says("old\n", "the settings from before stay in force"),
        ..LISTENING
    });
}
