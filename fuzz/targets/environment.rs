//! The environment that systemd, or any other parent process, sets: LISTEN_PID,
//! LISTEN_FDS and LISTEN_FDNAMES, then CONFIGURATION_DIRECTORY, which is also parsed
//! as an argument of `--listen`. The values are separated by bytes 0xFF, which UTF-8
//! does not contain; a value that is not UTF-8 stands for a variable that is not set.
#![no_main]

use std::ffi::OsStr;

use greeter::error::Error;
use greeter::settings::files::search_paths;
use greeter::socket::ListenAddr;
use greeter::systemd::activation::{Identity, ListenEnv, validate};
use libfuzzer_sys::fuzz_target;

const OWN_PID: u32 = 4242;
const OWN: Identity = Identity {
    pid: OWN_PID,
    pidfd_id: Some(77),
};

fuzz_target!(|bytes: &[u8]| {
    let mut values = bytes
        .split(|byte| *byte == 0xFF)
        .map(|value| String::from_utf8(value.to_vec()).ok());
    let mut env = ListenEnv {
        pid: values.next().flatten(),
        pidfd_id: None,
        fds: values.next().flatten(),
        names: values.next().flatten(),
    };
    let text = values.next().flatten();
    env.pidfd_id = values.next().flatten();
    check_listen_env(&env);
    if let Some(text) = text {
        let paths = search_paths("greeter", Some(OsStr::new(&text)));
        assert!(paths.iter().all(|path| path.is_absolute()));
        if let Ok(address) = text.parse::<ListenAddr>() {
            assert_eq!(address.to_string(), text);
        }
    }
});

/// A valid environment names as many sockets as it announces, with names that systemd
/// can assign; an error is one short line.
fn check_listen_env(env: &ListenEnv) {
    match validate(env, OWN) {
        Ok(names) if names.is_empty() => {
            let fds = env.fds.as_deref().unwrap_or("0");
            assert!(fds.bytes().all(|byte| byte == b'0'));
        }
        Ok(names) => {
            let pid = env.pid.as_deref().unwrap();
            assert_eq!(pid.trim_start_matches('0'), OWN_PID.to_string());
            let fds = env.fds.as_deref().unwrap();
            assert_eq!(fds.parse::<usize>().unwrap(), names.len());
            assert!(names.len() <= 4096);
            for name in names {
                assert!((1..=255).contains(&name.len()));
                assert!(!name.contains(':') && !name.contains(char::is_control));
            }
        }
        Err(error) => {
            let error = Error::from(error);
            assert_eq!(error.status(), 1);
            let message = error.to_string();
            assert!(
                message.len() < 500 && !message.contains(char::is_control),
                "{message:?}"
            );
        }
    }
}
