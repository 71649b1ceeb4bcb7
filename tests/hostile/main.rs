//! Invalid sockets, environments and settings against the built program: one clear
//! line on stderr, the right exit status, no wrong byte to a client, no hang.

mod case;
mod sockets;
#[path = "../support/mod.rs"]
mod support;
mod tables;

use case::{Case, Expected::Logs, LISTENING, check_all};
use tables::*;

#[test]
fn listen_environment_is_validated() {
    check_all(LISTEN_ENVIRONMENT, |&(listen, expected)| Case {
        listen,
        expected,
        ..LISTENING
    });
}

#[test]
fn descriptors_are_validated() {
    check_all(DESCRIPTORS, |&(inherited, redirect, expected)| Case {
        inherited,
        redirect,
        expected,
        ..LISTENING
    });
    check_all(TWO_DESCRIPTORS, |&(inherited, redirect, expected)| Case {
        inherited,
        listen: "LISTEN_PID=$$ LISTEN_FDS=2",
        redirect,
        expected,
        ..LISTENING
    });
}

#[test]
fn client_on_stdin_reads_only_the_greeting() {
    check_all(STDIN, |&(inherited, arguments, redirect, expected)| Case {
        inherited,
        listen: "",
        arguments,
        redirect,
        expected,
        ..LISTENING
    });
}

#[test]
fn client_as_output_reads_only_the_greeting() {
    check_all(
        OUTPUT_TO_CLIENT,
        |&(inherited, listen, arguments, redirect, expected)| Case {
            inherited,
            listen,
            arguments,
            redirect,
            expected,
            ..LISTENING
        },
    );
}

#[test]
fn mode_mismatch_is_reported_and_closes_gracefully() {
    check_all(MODE_MISMATCHES, |&(inherited, setup, expected)| Case {
        inherited,
        setup,
        expected,
        ..LISTENING
    });
}

#[test]
fn invalid_settings_are_reported_with_their_position() {
    check_all(SETTINGS, |&(setup, expected)| Case {
        setup,
        expected,
        ..LISTENING
    });
}

#[test]
fn invalid_notify_environment_does_not_prevent_greetings() {
    check_all(MANAGER_ENVIRONMENT, |&(environment, expected)| Case {
        environment,
        expected,
        ..LISTENING
    });
}

#[test]
fn resource_shortage_does_not_prevent_greetings() {
    check_all(SHORTAGES, |&(setup, redirect, expected)| Case {
        setup,
        redirect,
        expected,
        ..LISTENING
    });
}

#[test]
fn instance_exits_with_broken_stderr_or_journal() {
    check_all(
        INSTANCES,
        |&(inherited, setup, environment, redirect, expected)| Case {
            inherited,
            setup,
            environment,
            redirect,
            expected,
            ..LISTENING
        },
    );
}

#[test]
fn reload_with_invalid_settings_keeps_the_current_ones() {
    check_all(RELOADS, |&(setup, change)| Case {
        setup,
        change,
        expected: Logs("old\n", "reload failed, keeping the current settings"),
        ..LISTENING
    });
}
