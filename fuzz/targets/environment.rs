//! What systemd says, or somebody in its name: LISTEN_PID, LISTEN_FDS and
//! LISTEN_FDNAMES (their texts stand between bytes 0xFF, which no text holds; a
//! variable that begins with 0xFE is not set), CONFIGURATION_DIRECTORY, `--listen`.
#![no_main]

use greeter::settings::source::places;
use greeter::socket::Place;
use greeter::systemd::activation::{Claim, doubt};
use libfuzzer_sys::fuzz_target;

const OWN_PID: u32 = 4242;

fuzz_target!(|bytes: &[u8]| {
    let texts = bytes.split(|byte| *byte == 0xFF);
    let mut texts = texts.map(|text| String::from_utf8(text.to_vec()));
    // What is no text, 0xFE included, is as good as absent: `take` refuses it before.
    let mut next = || texts.next().and_then(Result::ok);
    let claim = Claim {
        pid: next(),
        fds: next(),
        names: next(),
    };
    match doubt(&claim, OWN_PID) {
        Ok(names) if names.is_empty() => {
            assert!(
                claim
                    .fds
                    .as_ref()
                    .is_none_or(|fds| fds.bytes().all(|b| b == b'0'))
            );
        }
        Ok(names) => {
            assert_eq!(claim.pid.as_ref().unwrap().trim_start_matches('0'), "4242");
            assert_eq!(
                claim.fds.as_ref().unwrap().parse::<usize>().unwrap(),
                names.len()
            );
            assert!(names.len() <= 4096);
            for name in names {
                assert!((1..=255).contains(&name.len()));
                assert!(!name.contains(':') && !name.contains(char::is_control));
            }
        }
        Err(error) => {
            assert_eq!(error.status(), 1);
            let said = error.to_string();
            assert!(
                said.len() < 500 && !said.contains(char::is_control),
                "{said:?}"
            );
        }
    }
    if let Some(text) = next() {
        let places = places("greeter", Some(&text));
        assert!(places.iter().all(|place| place.is_absolute()));
        if let Ok(place) = text.parse::<Place>() {
            assert_eq!(place.to_string(), text);
        }
    }
});
