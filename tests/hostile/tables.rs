//! The tables of test cases. Each row has shell code, which `case.rs` executes, and
//! the expected result.

use crate::case::Expected::{self, Fails, Greets, Logs, Silent};
use crate::case::{ACCEPT, ACCEPTED, INET};
use crate::sockets::Inherited::{self, *};

/// `LISTEN_*` variables, with a listening socket as descriptor 3.
#[rustfmt::skip]
pub const LISTEN_ENVIRONMENT: &[(&str, Expected)] = &[
    ("LISTEN_PID=$$ LISTEN_FDS=0",                       Fails(1, "no sockets passed by systemd")),
    ("LISTEN_PID=$$ LISTEN_FDS=-1",                      Fails(1, "invalid LISTEN_FDS '-1': expected a number")),
    ("LISTEN_PID=$$ LISTEN_FDS=18446744073709551615",    Fails(1, "invalid LISTEN_FDS '18446744073709551615': expected at most 4096")),
    ("LISTEN_PID=$$ LISTEN_FDS=18446744073709551616",    Fails(1, "expected at most 4096")),
    ("LISTEN_PID=$$ LISTEN_FDS=1000000",                 Fails(1, "expected at most 4096")),
    ("LISTEN_PID=$$ LISTEN_FDS=one",                     Fails(1, "invalid LISTEN_FDS 'one': expected a number")),
    ("LISTEN_PID=$$ LISTEN_FDS='1 1'",                   Fails(1, "invalid LISTEN_FDS '1 1': expected a number")),
    ("LISTEN_PID=$$ LISTEN_FDS=' 1'",                    Fails(1, "invalid LISTEN_FDS ' 1': expected a number")),
    ("LISTEN_PID=$$ LISTEN_FDS='1\n'",                   Fails(1, r"invalid LISTEN_FDS '1\n': expected a number")),
    ("LISTEN_PID=$$ LISTEN_FDS=+1",                      Fails(1, "invalid LISTEN_FDS '+1': expected a number")),
    ("LISTEN_PID=$$ LISTEN_FDS=0x1",                     Fails(1, "invalid LISTEN_FDS '0x1': expected a number")),
    ("LISTEN_PID=$$ LISTEN_FDS=",                        Fails(1, "invalid LISTEN_FDS '': expected a number")),
    ("LISTEN_PID=$$ LISTEN_FDS=$(printf '\\377')",       Fails(1, "LISTEN_FDS is not UTF-8")),
    ("LISTEN_PID=$$ LISTEN_FDS=$(printf %99999d 1)",     Fails(1, "…': expected a number")),
    ("LISTEN_PID=$$ LISTEN_FDS=2",                       Fails(1, "descriptor 4, passed by LISTEN_FDS, is not open")),
    ("LISTEN_PID=$$",                                    Fails(1, "LISTEN_PID is set, but LISTEN_FDS is not")),
    ("LISTEN_FDS=1",                                     Fails(1, "LISTEN_FDS is set, but LISTEN_PID is not")),
    ("",                                                 Fails(1, "no sockets passed by systemd; run 'systemctl restart greeter.socket'")),
    ("LISTEN_FDNAMES=smtp",                              Fails(1, "no sockets passed by systemd")),
    ("LISTEN_PID=1 LISTEN_FDS=1",                        Fails(1, "LISTEN_PID is 1, but this is process")),
    ("LISTEN_PID=$PPID LISTEN_FDS=1",                    Fails(1, "; start greeter from its socket unit")),
    ("LISTEN_PID=0 LISTEN_FDS=1",                        Fails(1, "invalid LISTEN_PID '0'")),
    ("LISTEN_PID=-$$ LISTEN_FDS=1",                      Fails(1, "invalid LISTEN_PID '-")),
    ("LISTEN_PID= LISTEN_FDS=1",                         Fails(1, "invalid LISTEN_PID ''")),
    ("LISTEN_PID=self LISTEN_FDS=1",                     Fails(1, "invalid LISTEN_PID 'self'")),
    ("LISTEN_PID=\"$$ \" LISTEN_FDS=1",                  Fails(1, " '; start greeter")),
    ("LISTEN_PID=99999999999999999999 LISTEN_FDS=1",     Fails(1, "invalid LISTEN_PID '99999999999999999999'")),
    ("LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_PIDFDID=1",      Fails(1, "LISTEN_PIDFDID is 1, but that of this process is")),
    ("LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_PIDFDID=",       Fails(1, "invalid LISTEN_PIDFDID ''")),
    ("LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_PIDFDID=-1",     Fails(1, "invalid LISTEN_PIDFDID '-1'")),
    ("LISTEN_PID=$(printf '\\377') LISTEN_FDS=1",        Fails(1, "LISTEN_PID is not UTF-8")),
    ("LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=",       Greets(ACCEPT)),
    ("LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES='{time}\"'", Logs(ACCEPT, "on '{time}\"'")),
    ("LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=a:b",    Fails(1, "LISTEN_FDNAMES has 2 names, but LISTEN_FDS is 1: the name of a socket contains a colon; set FileDescriptorName= in its socket unit")),
    ("LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=:::",    Fails(1, "LISTEN_FDNAMES has 4 names, but LISTEN_FDS is 1")),
    ("LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES='a\nb'", Fails(1, r"invalid name 'a\nb' in LISTEN_FDNAMES")),
    ("LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=$(printf '\\033[2J')", Fails(1, r"invalid name '\u{1b}[2J' in LISTEN_FDNAMES")),
    ("LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=$(printf '\\377')", Fails(1, "LISTEN_FDNAMES is not UTF-8")),
    ("LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=$(printf %300d 1)", Fails(1, "…' in LISTEN_FDNAMES")),
];

/// Descriptor 3, with `LISTEN_FDS=1`.
#[rustfmt::skip]
pub const DESCRIPTORS: &[(Inherited, &str, Expected)] = &[
    (Nothing,             "3<&-",                         Fails(1, "descriptor 3, passed by LISTEN_FDS, is not open")),
    (Nothing,             "3<greeter.toml",               Fails(1, "descriptor 3, passed by LISTEN_FDS, is not a socket")),
    (Nothing,             "3<.",                          Fails(1, "is not a socket")),
    (Nothing,             "3</dev/null",                  Fails(1, "is not a socket")),
    (Nothing,             "3<>/dev/zero",                 Fails(1, "is not a socket")),
    (Pipe,                "3<&0",                         Fails(1, "is not a socket")),
    (Udp,                 "3<&0",                         Fails(1, "is a datagram socket")),
    (UnixDatagram,        "3<&0",                         Fails(1, "is a datagram socket")),
    (Netlink,             "3<&0",                         Fails(1, "is a raw socket; replace ListenNetlink= with ListenStream= in the socket unit")),
    (SeqPacket,           "3<&0",                         Fails(1, "is a sequential-packet socket")),
    (SeqPacketListener,   "3<&0",                         Fails(1, "is a sequential-packet socket")),
    (BoundSocket,         "3<&0 0</dev/null",             Logs("", "disconnected from 'unknown' before the greeting was sent")),
    (ResetConnection,     "3<&0 0</dev/null",             Logs("", "disconnected from 'unknown' before the greeting was sent")),
    (ConnectionWithInput, "3<&0 0</dev/null",             Logs(ACCEPTED, "greeted 127.0.0.1 port")),
    (UnixConnection,      "3<&0 0</dev/null",             Logs(ACCEPTED, "greeted a client")),
    // stdout and stderr are the connection: the client must not receive the log.
    (Connection,          "3<&0 0</dev/null 2>&3",        Greets(ACCEPTED)),
    (Connection,          "3<&0 0</dev/null 1>&3 2>&3",   Greets(ACCEPTED)),
    (Listener,            "3<&0 1>&3 2>&3",               Greets(ACCEPT)),
    // Some of 0, 1 and 2 are closed: no descriptor that is opened later may get these numbers.
    (Connection,          "3<&0 0<&-",                    Greets(ACCEPTED)),
    (Connection,          "3<&0 0<&- 1>&- 2>&-",          Greets(ACCEPTED)),
    (Listener,            "3<&0 0<&- 1>&- 2>&-",          Greets(ACCEPT)),
    (UnixListener,        "3<&0 1>&-",                    Greets(ACCEPT)),
    (Listener,            "3<&0 1>/dev/full 2>/dev/full", Greets(ACCEPT)),
];

/// Descriptors 3 and 4, with `LISTEN_FDS=2`.
#[rustfmt::skip]
pub const TWO_DESCRIPTORS: &[(Inherited, &str, Expected)] = &[
    (ListenerAndConnection, "3<&0 4<&1",        Fails(78, "1 of 2 sockets are connected; pass one connected socket, or")),
    (ListenerAndConnection, "3<&1 4<&0",        Fails(78, "1 of 2 sockets are connected; pass one connected socket, or")),
    (TwoConnections,        "3<&0 4<&1",        Fails(78, "2 of 2 sockets are connected; pass one connected socket, or")),
    (Listener,              "3<&0 4<&0",        Greets(ACCEPT)),
    (Listener,              "3<&- 4<&0",        Fails(1, "descriptor 3, passed by LISTEN_FDS, is not open")),
    (Listener,              "3<&0 4</dev/null", Fails(1, "descriptor 4, passed by LISTEN_FDS, is not a socket")),
];

/// Arguments and redirections, with the socket as stdin and no `LISTEN_*` variables.
#[rustfmt::skip]
pub const STDIN: &[(Inherited, &str, &str, Expected)] = &[
    (Connection,          "--config ./greeter.toml",               "",          Greets(INET)),
    (ConnectionWithInput, "--config ./greeter.toml",               "1>&0",      Greets(INET)),
    (UnixConnection,      "--config ./greeter.toml",               "1>&- 2>&-", Greets(INET)),
    (Connection,          "--config ./greeter.toml",               "1>&0 2>&0", Greets(INET)),
    (ResetConnection,     "--config ./greeter.toml",               "1>&0 2>&0", Silent(0)),
    (Connection,          "--config ./missing.toml",               "1>&0 2>&0", Silent(78)),
    (Connection,          "--config ./missing.toml",               "1>&0",      Fails(78, "missing.toml: file not found; check the path given to --config")),
    (Connection,          "--config ./missing.toml --check",       "1>&0 2>&0", Silent(78)),
    (Connection,          "--config ./greeter.toml --check",       "1>&0",      Silent(0)),
    (Connection,          "--config ./greeter.toml --show-config", "1>&0",      Silent(0)),
    (Connection,          "--version",                             "1>&0 2>&0", Silent(0)),
    (Connection,          "--nonsense",                            "1>&0 2>&0", Silent(2)),
    (Connection,          "--listen 127.0.0.1:1:1",                "1>&0 2>&0", Silent(2)),
    (Listener,            "--config ./greeter.toml",               "",          Fails(78, "stdin is a listening socket")),
    (Udp,                 "--config ./greeter.toml",               "",          Fails(1, "stdin is a datagram socket; replace ListenDatagram=")),
    (Pipe,                "--config ./greeter.toml",               "",          Fails(1, "no sockets passed by systemd")),
    (Nothing,             "--config ./greeter.toml",               "0<&-",      Fails(1, "no sockets passed by systemd")),
    (Nothing,             "--config ./greeter.toml",               "0<.",       Fails(1, "no sockets passed by systemd")),
];

/// `LISTEN_*` variables, arguments and redirections, with a client as stdout or stderr:
/// it reads nothing, whatever fails.
#[rustfmt::skip]
pub const OUTPUT_TO_CLIENT: &[(Inherited, &str, &str, &str, Expected)] = &[
    (AbstractConnection, "",                                              "--config ./greeter.toml", "1>&0 2>&0",                        Greets(INET)),
    (AbstractConnection, "",                                              "--config ./missing.toml", "1>&0 2>&0",                        Silent(78)),
    (AbstractConnection, "",                                              "--version",               "1>&0 2>&0",                        Silent(0)),
    (AbstractConnection, "",                                              "--nonsense",              "1>&0 2>&0",                        Silent(2)),
    (AbstractConnection, "LISTEN_PID=$$ LISTEN_FDS=1",                    "--config ./greeter.toml", "3<&0 0</dev/null 1>&3 2>&3",       Greets(ACCEPTED)),
    (AbstractConnection, "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=a:b", "--config ./greeter.toml", "3<&0 0</dev/null 2>&3",            Silent(1)),
    (Connection,         "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=a:b", "--config ./greeter.toml", "3<&0 0</dev/null 2>&3",            Silent(1)),
    (Connection,         "LISTEN_PID=$$ LISTEN_FDS=2",                    "--config ./greeter.toml", "3<&0 0</dev/null 4</dev/null 2>&3", Silent(1)),
    (Connection,         "LISTEN_PID=$$ LISTEN_FDS=2",                    "--config ./greeter.toml", "3</dev/null 4<&0 0</dev/null 2>&4", Silent(1)),
    (Connection,         "LISTEN_PID=1 LISTEN_FDS=1",                     "--config ./greeter.toml", "3<&0 0</dev/null 2>&3",            Silent(1)),
    (Connection,         "",                                              "--config ./greeter.toml", "1>&0 0</dev/null",                 Fails(1, "no sockets passed by systemd")),
    (Connection,         "",                                              "--version",               "1>&0 0</dev/null",                 Silent(0)),
    (Connection,         "",                                              "--help",                  "1>&0 0</dev/null 2>&1",            Silent(0)),
    (Connection,         "",                                              "--nonsense",              "1>&0 0</dev/null 2>&1",            Silent(2)),
];

/// Settings with a mode that does not match the socket.
#[rustfmt::skip]
pub const MODE_MISMATCHES: &[(Inherited, &str, Expected)] = &[
    (Connection,          "echo 'mode = \"accept\"' >greeter.toml",   Fails(78, "set mode = \"accepted\", or configure Accept=no in the socket unit")),
    (Connection,          "echo 'mode = \"inet\"' >greeter.toml",     Fails(78, "or configure Accept=yes in the socket unit and StandardInput=socket")),
    (Listener,            "echo 'mode = \"accepted\"' >greeter.toml", Fails(78, "set mode = \"accept\", or configure Accept=yes in the socket unit and no")),
    (Listener,            "echo 'mode = \"inet\"' >greeter.toml",     Fails(78, "greeter.toml:1:8: mode = \"inet\" does not match the socket")),
    (ConnectionWithInput, "echo 'mode = \"accept\"' >greeter.toml",   Fails(78, "greeter.toml:1:8: mode = \"accept\" does not match the socket")),
];

/// Settings files, with a listening socket.
#[rustfmt::skip]
pub const SETTINGS: &[(&str, Expected)] = &[
    (": >greeter.toml",                                    Greets(ACCEPT)),
    ("ln -s /dev/null greeter.toml",                       Greets(ACCEPT)),
    ("true",                                               Fails(78, "greeter.toml: file not found")),
    ("ln -s missing greeter.toml",                         Fails(78, "greeter.toml: is a link to 'missing', which does not exist or is hidden by the sandbox")),
    ("ln -s a greeter.toml; ln -s b a",                    Fails(78, "greeter.toml: is a link to 'a', which does not exist")),
    (": >greeter.toml; ln -s gone greeter.toml.d",         Fails(78, "greeter.toml.d: is a link to 'gone', which does not exist")),
    (": >greeter.toml; mkdir greeter.toml.d; ln -s gone greeter.toml.d/a.toml", Fails(78, "a.toml: is a link to 'gone', which does not exist")),
    (": >greeter.toml; mkdir greeter.toml.d; ln -s /dev/null greeter.toml.d/a.toml", Greets(ACCEPT)),
    ("echo 'message_file = \"m\"' >greeter.toml; ln -s gone m", Fails(78, "m: is a link to 'gone', which does not exist")),
    ("echo 'message_file = \"d/m\"' >greeter.toml; ln -s gone d", Fails(78, "d/m: cannot be found: './d' is a link to 'gone', which does not exist")),
    ("printf '\\377\\376m\\0' >greeter.toml",                 Fails(78, "greeter.toml: is UTF-16; save it as UTF-8")),
    ("echo 'message_file = \"m\"' >greeter.toml; printf '\\376\\377\\0x' >m", Fails(78, "m: is UTF-16; save it as UTF-8")),
    ("echo 'message_file = \"m\"' >greeter.toml; printf '\\357\\273\\277421 x' >m", Greets("421 x\n")),
    ("printf '%s\n' 'line_ending = \"raw\"' 'message_file = \"m\"' >greeter.toml; printf '\\357\\273\\277421 x' >m", Greets("\u{feff}421 x")),
    ("truncate -s 1G greeter.toml",                        Fails(78, "is longer than 1048576 bytes")),
    ("truncate -s 1M greeter.toml",                        Fails(78, "greeter.toml:1:")),
    ("printf 'message = \"\\377\"' >greeter.toml",         Fails(78, "greeter.toml:1:12: is not UTF-8")),
    ("mkfifo greeter.toml",                                Fails(78, "is not a regular file")),
    ("mkdir greeter.toml",                                 Fails(78, "is not a regular file")),
    ("ln -s /dev/zero greeter.toml",                       Fails(78, "is not a regular file")),
    ("ln -s stream greeter.toml",                          Fails(78, "is not a regular file")),
    ("touch greeter.toml; chmod 0 greeter.toml",           Fails(78, "cannot be read: permission denied")),
    ("ln -s greeter.toml greeter.toml",                    Fails(78, "greeter.toml: cannot be read: ")),
    ("ln -s other greeter.toml; ln -s greeter.toml other", Fails(78, "greeter.toml: cannot be read: ")),
    ("printf '\\357\\273\\277message = \"x\"\\r\\n' >greeter.toml", Greets("x\n")),
    ("printf %s '\"a\\nb\\u001b[2J\" = 1' >greeter.toml",  Fails(78, "unknown key")),
    ("printf '%s\n' '[greeting.\"a\\nb\"]' 'x = 1' >greeter.toml", Fails(78, "unknown key 'x'")),
    ("printf %s 'mode = \"\\n\\u0000\"' >greeter.toml",    Fails(78, r#"invalid value "\n\u0000" for 'mode'"#)),
    ("printf %s 'message = \"{a\\u001bb}\"' >greeter.toml", Fails(78, "unknown placeholder")),
    ("printf %200000s | tr ' ' '[' >greeter.toml",         Fails(78, "invalid TOML")),
    ("{ printf 'a = '; printf %200000s | tr ' ' '['; } >greeter.toml", Fails(78, "greeter.toml:1:")),
    ("printf 'a%.0s.' $(seq 200000) >greeter.toml; echo 'b = 1' >>greeter.toml", Fails(78, "greeter.toml:1:")),
    ("printf 'a = { %.0s' $(seq 100000) >greeter.toml",    Fails(78, "greeter.toml:1:")),
    ("{ printf '['; printf 'greeting.%.0s' $(seq 100000); echo 'a]'; } >greeter.toml", Fails(78, "greeter.toml:1:")),
    ("echo 'limits.connections = 9223372036854775808' >greeter.toml", Fails(78, "greeter.toml:1:")),
    ("echo 'limits.connections = -1' >greeter.toml",       Fails(78, "expected an integer from 1 to 1000000")),
    ("echo 'limits.connections = inf' >greeter.toml",      Fails(78, "invalid value inf for 'connections'")),
    ("echo 'limits.idle_timeout = \"99999999999999999999y\"' >greeter.toml", Fails(78, "\" for 'idle_timeout': expected a duration")),
    ("echo 'limits.write_timeout = \"18446744073709551615s\"' >greeter.toml", Fails(78, "\" for 'write_timeout': expected a duration")),
    ("echo 'limits = 5' >greeter.toml",                    Fails(78, "greeter.toml:1:")),
    ("{ printf 'message = \"'; printf %1000000s; echo '\"'; } >greeter.toml", Greets("  *  \n")),
    ("echo 'message_file = \"missing\"' >greeter.toml",    Fails(78, "greeter.toml:1:16: file '")),
    ("printf %s 'message_file = \"a\\nb\"' >greeter.toml", Fails(78, "greeter.toml:1:16: file '")),
    ("printf %s 'message_file = \"a\\u0000b\"' >greeter.toml", Fails(78, "greeter.toml:1:16: invalid value \"a\\u0000b\" for 'message_file'")),
    ("echo 'message_file = \"\"' >greeter.toml",           Fails(78, "greeter.toml:1:16: invalid value \"\" for 'message_file'")),
    ("echo \"message_file = '$(printf %0256d)'\" >greeter.toml", Fails(78, "and with at most 255 bytes per name")),
    ("echo \"message_file = '$(printf %0255d)'\" >greeter.toml", Fails(78, "greeter.toml:1:16: file '")),
    ("echo 'message_file = \"/dev/stdin\"' >greeter.toml", Greets("\n")),
    ("echo 'message_file = \"/proc/self/fd/3\"' >greeter.toml", Fails(78, "is not a regular file")),
    ("echo 'message_file = \"m\"' >greeter.toml; mkfifo m", Fails(78, "is not a regular file")),
    ("echo 'message_file = \"m\"' >greeter.toml; truncate -s 1G m", Fails(78, "m: is longer than")),
    ("echo 'message_file = \"m\"' >greeter.toml; ln -s m m", Fails(78, "m: cannot be read: ")),
    ("echo 'message_file = \"m\"' >greeter.toml; touch m; chmod 0 m", Fails(78, "m: cannot be read: permission denied")),
    ("echo 'message_file = \"m\"' >greeter.toml; printf 'a\n{b}' >m", Fails(78, "m:2:1: unknown placeholder '{b}'")),
    ("echo 'message_file = \"m\"' >greeter.toml; printf 'a\\033{{}}' >m", Greets("a\u{1b}{}\n")),
    (": >greeter.toml; touch greeter.toml.d",              Fails(78, "greeter.toml.d: cannot be read: not a directory; ")),
    (": >greeter.toml; mkdir -m 0 greeter.toml.d",         Fails(78, "greeter.toml.d: cannot be read: permission denied")),
    (": >greeter.toml; ln -s greeter.toml.d greeter.toml.d", Fails(78, "greeter.toml.d: cannot be read: ")),
    (": >greeter.toml; mkdir greeter.toml.d; mkfifo greeter.toml.d/a.toml", Fails(78, "a.toml: is not a regular file")),
    (": >greeter.toml; mkdir greeter.toml.d; ln -s a.toml greeter.toml.d/a.toml", Fails(78, "a.toml: cannot be read: ")),
    (": >greeter.toml; mkdir greeter.toml.d; echo x >\"greeter.toml.d/$(printf 'a\\nb\\033').toml\"", Fails(78, "invalid TOML")),
    (": >greeter.toml; mkdir greeter.toml.d; echo x >\"greeter.toml.d/$(printf '\\377').toml\"", Fails(78, "invalid TOML")),
    (": >greeter.toml; mkdir greeter.toml.d; cd greeter.toml.d; seq -f %g.toml 5000 | xargs touch; cd ..", Greets(ACCEPT)),
    ("echo 'message = \"{socket} {mode} {{time}}\"' >greeter.toml", Greets("unknown accept {time}\n")),
];

/// Variables of the service manager, with a listening socket.
#[rustfmt::skip]
pub const MANAGER_ENVIRONMENT: &[(&str, Expected)] = &[
    ("NOTIFY_SOCKET=/nonexistent/notify",             Logs(ACCEPT, "sd_notify failed: ")),
    ("NOTIFY_SOCKET=@greeter-unbound-$$",             Logs(ACCEPT, "sd_notify failed: ")),
    ("NOTIFY_SOCKET=$PWD/closed",                     Logs(ACCEPT, "sd_notify failed: ")),
    ("NOTIFY_SOCKET=$PWD",                            Logs(ACCEPT, "sd_notify failed: ")),
    ("NOTIFY_SOCKET=$PWD/stream",                     Logs(ACCEPT, "sd_notify failed: ")),
    ("NOTIFY_SOCKET=$PWD/$(printf %0200d 1)",         Logs(ACCEPT, "sd_notify failed: ")),
    ("NOTIFY_SOCKET=vsock:2:1234",                    Logs(ACCEPT, "NOTIFY_SOCKET is 'vsock:2:1234', which is not the address of a Unix socket; continuing")),
    ("NOTIFY_SOCKET=notify",                          Logs(ACCEPT, "NOTIFY_SOCKET is 'notify', ")),
    ("NOTIFY_SOCKET=",                                Greets(ACCEPT)),
    ("NOTIFY_SOCKET=@",                               Greets(ACCEPT)),
    ("NOTIFY_SOCKET=$(printf '\\377')",               Greets(ACCEPT)),
    ("WATCHDOG_USEC=-1",                              Greets(ACCEPT)),
    ("WATCHDOG_USEC=1",                               Greets(ACCEPT)),
    ("WATCHDOG_USEC=18446744073709551615",            Greets(ACCEPT)),
    ("WATCHDOG_USEC=soon WATCHDOG_PID=$$",            Greets(ACCEPT)),
    ("WATCHDOG_USEC=1000000 WATCHDOG_PID=1",          Greets(ACCEPT)),
    ("JOURNAL_STREAM=",                               Logs(ACCEPT, "greeter: listening on 127.0.0.1:")),
    ("JOURNAL_STREAM=journal",                        Logs(ACCEPT, "greeter: listening on 127.0.0.1:")),
    ("JOURNAL_STREAM=1:2:3",                          Logs(ACCEPT, "greeter: listening on 127.0.0.1:")),
    ("JOURNAL_STREAM=-1:99999999999999999999",        Logs(ACCEPT, "greeter: listening on 127.0.0.1:")),
    ("JOURNAL_STREAM=$(printf '\\377')",              Logs(ACCEPT, "greeter: listening on 127.0.0.1:")),
    ("JOURNAL_STREAM=$(stat -c %d:%i /)",             Logs(ACCEPT, "greeter: listening on 127.0.0.1:")),
    ("CONFIGURATION_DIRECTORY=.:::$(printf '\\377')", Greets(ACCEPT)),
    ("RUST_LOG=trace RUST_BACKTRACE=full",            Greets(ACCEPT)),
];

/// Too few resources, with a listening socket: setup and redirections.
#[rustfmt::skip]
pub const SHORTAGES: &[(&str, &str, Expected)] = &[
    (FEW_DESCRIPTORS, "3<&0",                  Fails(1, "cannot handle signals: too many open files")),
    (FULL_STDERR,     "3<&0 0</dev/null 2>&9", Greets(ACCEPT)),
];

/// One connection: setup, environment and redirections.
#[rustfmt::skip]
pub const INSTANCES: &[(Inherited, &str, &str, &str, Expected)] = &[
    (Connection,               "touch greeter.toml",  "NOTIFY_SOCKET=$PWD/closed",              "3<&0 0</dev/null",             Logs(ACCEPTED, "greeted 127.0.0.1 port")),
    (Connection,               "touch greeter.toml",  "NOTIFY_SOCKET=$PWD",                     "3<&0 0</dev/null",             Logs(ACCEPTED, "greeted 127.0.0.1 port")),
    (Connection,               "touch greeter.toml",  "NOTIFY_SOCKET=@greeter-unbound-$$",      "3<&0 0</dev/null",             Logs(ACCEPTED, "greeted 127.0.0.1 port")),
    (Connection,               "touch greeter.toml",  "JOURNAL_STREAM=$(stat -c %d:%i /)",      "3<&0 0</dev/null",             Logs(ACCEPTED, "greeter: greeted 127.0.0.1 port")),
    (Connection,               "touch greeter.toml",  "GREETER=",                               "3<&0 0</dev/null 2>/dev/full", Greets(ACCEPTED)),
    (Connection,               FEW_DESCRIPTORS,       "GREETER=",                               "3<&0",                         Greets(ACCEPTED)),
    (Connection,               "touch greeter.toml",  "JOURNAL_STREAM=$(stat -c %d:%i stderr)", "3<&0 0</dev/null",             Logs(ACCEPTED, "<5>greeted 127.0.0.1 port")),
    (Connection,               "mkfifo greeter.toml", "JOURNAL_STREAM=$(stat -c %d:%i stderr)", "3<&0 0</dev/null",             Fails(78, "<3>")),
    // stderr is the stream that JOURNAL_STREAM names: every line starts with its priority, and is
    // dropped if writing it would block.
    (ConnectionAndJournal,     "touch greeter.toml",  JOURNAL_STREAM,                           "3<&0 0</dev/null 2>&1",        Logs(ACCEPTED, "<5>greeted 127.0.0.1 port")),
    (ConnectionAndJournal,     "mkfifo greeter.toml", JOURNAL_STREAM,                           "3<&0 0</dev/null 2>&1",        Fails(78, "<3>")),
    (ConnectionAndFullJournal, "touch greeter.toml",  JOURNAL_STREAM,                           "3<&0 0</dev/null 2>&1",        Greets(ACCEPTED)),
    (ConnectionAndFullJournal, "mkfifo greeter.toml", JOURNAL_STREAM,                           "3<&0 0</dev/null 2>&1",        Silent(78)),
];

/// Names the stream on descriptor 1, which the redirections duplicate to stderr.
const JOURNAL_STREAM: &str = "JOURNAL_STREAM=$(stat -L -c %d:%i /proc/$$/fd/1)";

/// All but two of the permitted descriptors are open; the dynamic loader needs two.
const FEW_DESCRIPTORS: &str = "touch greeter.toml; ulimit -n 11; \
    exec 4</dev/null 5<&4 6<&4 7<&4 8<&4";

/// Descriptor 9, for stderr, is a full pipe that is never read.
const FULL_STDERR: &str = "touch greeter.toml; mkfifo full; exec 9<>full; \
    dd if=/dev/zero of=full bs=4096 count=1024 oflag=nonblock 2>/dev/null || true";

/// Setup, and changes that make the settings invalid before a reload.
#[rustfmt::skip]
pub const RELOADS: &[(&str, &str)] = &[
    ("echo 'message_file = \"m\"' >greeter.toml; echo old >m", "rm m"),
    ("echo 'message_file = \"m\"' >greeter.toml; echo old >m", "rm m; mkfifo m"),
    ("echo 'message_file = \"m\"' >greeter.toml; echo old >m", "chmod 0 m"),
    ("echo 'message_file = \"m\"' >greeter.toml; echo old >m", "truncate -s 1G m"),
    ("echo 'message_file = \"m\"' >greeter.toml; echo old >m", "printf 'new {' >m"),
    ("echo 'message = \"old\"' >greeter.toml",                 "rm greeter.toml"),
    ("echo 'message = \"old\"' >greeter.toml",                 "rm greeter.toml; mkdir greeter.toml"),
    ("echo 'message = \"old\"' >greeter.toml",                 "rm greeter.toml; ln -s greeter.toml greeter.toml"),
    ("echo 'message = \"old\"' >greeter.toml",                 "printf '\\377' >greeter.toml"),
    ("echo 'message = \"old\"' >greeter.toml",                 "echo 'mode = \"inet\"' >greeter.toml"),
    ("echo 'message = \"old\"' >greeter.toml",                 "mkfifo greeter.toml.d"),
];
