//! greeter as curl(1) sees it, which sends a request before it reads.

mod support;

use std::process::Command;

use support::{MODES, activate, free_port};

#[test]
fn curl_http09_reads_the_greeting() {
    for (options, greeting) in MODES {
        let port = free_port();
        let _process = activate(options, &port.to_string(), &[]);
        for _ in 0..20 {
            let url = format!("http://127.0.0.1:{port}/");
            let curl = Command::new("curl")
                .args(["--http0.9", "-sS", &url])
                .output()
                .unwrap();
            assert!(
                curl.status.success(),
                "{}",
                String::from_utf8_lossy(&curl.stderr)
            );
            assert_eq!(String::from_utf8_lossy(&curl.stdout), greeting);
        }
    }
}
