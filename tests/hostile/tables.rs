//! The tables. Each row is shell, as `case.rs` runs it, and what must come of it.

use crate::case::End::{self, Fails, Greets, Says, Silent};
use crate::case::{ACCEPT, ACCEPTED, INET};
use crate::handed::Handed::{self, *};

/// What is in the environment, with a listening socket as descriptor 3.
#[rustfmt::skip]
pub const ENVIRONMENT: &[(&str, End)] = &[
    ("LISTEN_PID=$$ LISTEN_FDS=0",                       Fails(1, "no socket was handed over")),
    ("LISTEN_PID=$$ LISTEN_FDS=-1",                      Fails(1, "LISTEN_FDS is '-1', which is no count")),
    ("LISTEN_PID=$$ LISTEN_FDS=18446744073709551615",    Fails(1, "LISTEN_FDS is '18446744073709551615', more than 4096")),
    ("LISTEN_PID=$$ LISTEN_FDS=18446744073709551616",    Fails(1, "more than 4096")),
    ("LISTEN_PID=$$ LISTEN_FDS=1000000",                 Fails(1, "more than 4096")),
    ("LISTEN_PID=$$ LISTEN_FDS=one",                     Fails(1, "LISTEN_FDS is 'one', which is no count")),
    ("LISTEN_PID=$$ LISTEN_FDS='1 1'",                   Fails(1, "LISTEN_FDS is '1 1', which is no count")),
    ("LISTEN_PID=$$ LISTEN_FDS=' 1'",                    Fails(1, "LISTEN_FDS is ' 1', which is no count")),
    ("LISTEN_PID=$$ LISTEN_FDS='1\n'",                   Fails(1, r"LISTEN_FDS is '1\n', which is no count")),
    ("LISTEN_PID=$$ LISTEN_FDS=+1",                      Fails(1, "LISTEN_FDS is '+1', which is no count")),
    ("LISTEN_PID=$$ LISTEN_FDS=0x1",                     Fails(1, "LISTEN_FDS is '0x1', which is no count")),
    ("LISTEN_PID=$$ LISTEN_FDS=",                        Fails(1, "LISTEN_FDS is '', which is no count")),
    ("LISTEN_PID=$$ LISTEN_FDS=$(printf '\\377')",       Fails(1, "LISTEN_FDS is not UTF-8")),
    ("LISTEN_PID=$$ LISTEN_FDS=$(printf %99999d 1)",     Fails(1, "…', which is no count")),
    ("LISTEN_PID=$$ LISTEN_FDS=2",                       Fails(1, "descriptor 4, handed over by LISTEN_FDS, is not open")),
    ("LISTEN_PID=$$",                                    Fails(1, "LISTEN_PID is set and LISTEN_FDS is not")),
    ("LISTEN_FDS=1",                                     Fails(1, "LISTEN_FDS is set and LISTEN_PID is not")),
    ("",                                                 Fails(1, "no socket was handed over; run 'systemctl start greeter.socket'")),
    ("LISTEN_FDNAMES=smtp",                              Fails(1, "no socket was handed over")),
    ("LISTEN_PID=1 LISTEN_FDS=1",                        Fails(1, "LISTEN_PID is 1 and this is process")),
    ("LISTEN_PID=$PPID LISTEN_FDS=1",                    Fails(1, "the sockets are not for us")),
    ("LISTEN_PID=0 LISTEN_FDS=1",                        Fails(1, "LISTEN_PID is '0', which is no process")),
    ("LISTEN_PID=-$$ LISTEN_FDS=1",                      Fails(1, "which is no process")),
    ("LISTEN_PID= LISTEN_FDS=1",                         Fails(1, "LISTEN_PID is '', which is no process")),
    ("LISTEN_PID=self LISTEN_FDS=1",                     Fails(1, "LISTEN_PID is 'self', which is no process")),
    ("LISTEN_PID=\"$$ \" LISTEN_FDS=1",                  Fails(1, "which is no process")),
    ("LISTEN_PID=99999999999999999999 LISTEN_FDS=1",     Fails(1, "which is no process")),
    ("LISTEN_PID=$(printf '\\377') LISTEN_FDS=1",        Fails(1, "LISTEN_PID is not UTF-8")),
    ("LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=",       Greets(ACCEPT)),
    ("LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES='{time}\"'", Says(ACCEPT, "on '{time}\"'")),
    ("LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=a:b",    Fails(1, "LISTEN_FDNAMES has 2 names and LISTEN_FDS is 1")),
    ("LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=:::",    Fails(1, "LISTEN_FDNAMES has 4 names and LISTEN_FDS is 1")),
    ("LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES='a\nb'", Fails(1, r"LISTEN_FDNAMES has the name 'a\nb'")),
    ("LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=$(printf '\\033[2J')", Fails(1, "LISTEN_FDNAMES has the name")),
    ("LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=$(printf '\\377')",    Fails(1, "LISTEN_FDNAMES is not UTF-8")),
    ("LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=$(printf %300d 1)",    Fails(1, "…', which systemd would not give")),
];

/// What is behind the descriptors, with LISTEN_FDS=1.
#[rustfmt::skip]
pub const DESCRIPTORS: &[(Handed, &str, End)] = &[
    (Nothing,           "3<&-",                      Fails(1, "descriptor 3, handed over by LISTEN_FDS, is not open")),
    (Nothing,           "3<greeter.toml",            Fails(1, "descriptor 3, handed over by LISTEN_FDS, is no socket")),
    (Nothing,           "3<.",                       Fails(1, "is no socket")),
    (Nothing,           "3</dev/null",               Fails(1, "is no socket")),
    (Nothing,           "3<>/dev/zero",              Fails(1, "is no socket")),
    (Pipe,              "3<&0",                      Fails(1, "is no socket")),
    (Udp,               "3<&0",                      Fails(1, "is a datagram socket")),
    (UnixDatagram,      "3<&0",                      Fails(1, "is a datagram socket")),
    (Netlink,           "3<&0",                      Fails(1, "is no stream socket")),
    (SeqPacket,         "3<&0",                      Fails(1, "is a sequential-packet socket")),
    (SeqPacketListener, "3<&0",                      Fails(1, "is a sequential-packet socket")),
    (Bound,             "3<&0 0</dev/null",          Says("", "left 'unknown' before it was greeted")),
    (Gone,              "3<&0 0</dev/null",          Says("", "left 'unknown' before it was greeted")),
    (Talker,            "3<&0 0</dev/null",          Says(ACCEPTED, "greeted 127.0.0.1 port")),
    (UnixClient,        "3<&0 0</dev/null",          Says(ACCEPTED, "greeted a client")),
    // Its own log and stdout are the client's socket: the client must not read them.
    (Client,            "3<&0 0</dev/null 2>&3",     Greets(ACCEPTED)),
    (Client,            "3<&0 0</dev/null 1>&3 2>&3", Greets(ACCEPTED)),
    (Listener,          "3<&0 1>&3 2>&3",            Greets(ACCEPT)),
    // None of 0, 1 and 2 is there: nothing that is opened later may take their place.
    (Client,            "3<&0 0<&-",                 Greets(ACCEPTED)),
    (Client,            "3<&0 0<&- 1>&- 2>&-",       Greets(ACCEPTED)),
    (Listener,          "3<&0 0<&- 1>&- 2>&-",       Greets(ACCEPT)),
    (UnixListener,      "3<&0 1>&-",                 Greets(ACCEPT)),
    (Listener,          "3<&0 1>/dev/full 2>/dev/full", Greets(ACCEPT)),
];

/// Two descriptors, with LISTEN_FDS=2.
#[rustfmt::skip]
pub const PAIRS: &[(Handed, &str, End)] = &[
    (ListenerAndClient, "3<&0 4<&1",                 Fails(78, "1 of 2 sockets are connected; hand over one client, or")),
    (ListenerAndClient, "3<&1 4<&0",                 Fails(78, "1 of 2 sockets are connected; hand over one client, or")),
    (TwoClients,        "3<&0 4<&1",                 Fails(78, "2 of 2 sockets are connected; hand over one client, or")),
    (Listener,          "3<&0 4<&0",                 Greets(ACCEPT)),
    (Listener,          "3<&- 4<&0",                 Fails(1, "descriptor 3, handed over by LISTEN_FDS, is not open")),
    (Listener,          "3<&0 4</dev/null",          Fails(1, "descriptor 4, handed over by LISTEN_FDS, is no socket")),
];

/// stdin, with nothing in the environment.
#[rustfmt::skip]
pub const STDIN: &[(Handed, &str, &str, End)] = &[
    (Client,       "--config ./greeter.toml",         "",         Greets(INET)),
    (Talker,       "--config ./greeter.toml",         "1>&0",     Greets(INET)),
    (UnixClient,   "--config ./greeter.toml",         "1>&- 2>&-", Greets(INET)),
    (Client,       "--config ./greeter.toml",         "1>&0 2>&0", Greets(INET)),
    (Gone,         "--config ./greeter.toml",         "1>&0 2>&0", Silent(0)),
    (Client,       "--config ./wrong.toml",           "1>&0 2>&0", Silent(78)),
    (Client,       "--config ./wrong.toml",           "1>&0",     Fails(78, "wrong.toml: does not exist")),
    (Client,       "--config ./wrong.toml --check",   "1>&0 2>&0", Silent(78)),
    (Client,       "--config ./greeter.toml --check", "1>&0",     Silent(0)),
    (Client,       "--config ./greeter.toml --show-config", "1>&0", Silent(0)),
    (Client,       "--version",                       "1>&0 2>&0", Silent(0)),
    (Client,       "--nonsense",                      "1>&0 2>&0", Silent(2)),
    (Client,       "--listen 127.0.0.1:1:1",          "1>&0 2>&0", Silent(2)),
    (Listener,     "--config ./greeter.toml",         "",         Fails(78, "stdin is a listening socket")),
    (Udp,          "--config ./greeter.toml",         "",         Fails(1, "no socket was handed over")),
    (Pipe,         "--config ./greeter.toml",         "",         Fails(1, "no socket was handed over")),
    (Nothing,      "--config ./greeter.toml",         "0<&-",     Fails(1, "no socket was handed over")),
    (Nothing,      "--config ./greeter.toml",         "0<.",      Fails(1, "no socket was handed over")),
];

/// A mode that the settings name and that the socket does not have.
#[rustfmt::skip]
pub const MODES: &[(Handed, &str, End)] = &[
    (Client,   "echo 'mode = \"accept\"' >greeter.toml",   Fails(78, "set mode = \"accepted\", or have Accept=no in the socket unit")),
    (Client,   "echo 'mode = \"inet\"' >greeter.toml",     Fails(78, "or have Accept=yes in the socket unit and StandardInput=socket")),
    (Listener, "echo 'mode = \"accepted\"' >greeter.toml", Fails(78, "set mode = \"accept\", or have Accept=yes in the socket unit and no")),
    (Listener, "echo 'mode = \"inet\"' >greeter.toml",     Fails(78, "greeter.toml:1:8: mode = \"inet\" does not fit the socket")),
    (Talker,   "echo 'mode = \"accept\"' >greeter.toml",   Fails(78, "greeter.toml:1:8: mode = \"accept\" does not fit the socket")),
];

/// What stands in the settings, with a listening socket.
#[rustfmt::skip]
pub const SETTINGS: &[(&str, End)] = &[
    (": >greeter.toml",                                     Greets(ACCEPT)),
    ("ln -s /dev/null greeter.toml",                        Greets(ACCEPT)),
    ("true",                                                Fails(78, "greeter.toml: does not exist")),
    ("ln -s nowhere greeter.toml",                          Fails(78, "greeter.toml: does not exist")),
    ("truncate -s 1G greeter.toml",                         Fails(78, "is longer than 1048576 bytes")),
    ("truncate -s 1M greeter.toml",                         Fails(78, "greeter.toml:1:")),
    ("printf 'message = \"\\377\"' >greeter.toml",          Fails(78, "greeter.toml:1:12: is not UTF-8")),
    ("mkfifo greeter.toml",                                 Fails(78, "is no regular file")),
    ("mkdir greeter.toml",                                  Fails(78, "is no regular file")),
    ("ln -s /dev/zero greeter.toml",                        Fails(78, "is no regular file")),
    ("ln -s stream greeter.toml",                           Fails(78, "is no regular file")),
    ("touch greeter.toml; chmod 0 greeter.toml",            Fails(78, "cannot be read: permission denied")),
    ("ln -s greeter.toml greeter.toml",                     Fails(78, "greeter.toml: cannot be read: ")),
    ("ln -s other greeter.toml; ln -s greeter.toml other",  Fails(78, "greeter.toml: cannot be read: ")),
    ("printf '\\357\\273\\277message = \"x\"\\r\\n' >greeter.toml", Greets("x\n")),
    ("printf %s '\"a\\nb\\u001b[2J\" = 1' >greeter.toml",        Fails(78, "unknown key")),
    ("printf '%s\n' '[greeting.\"a\\nb\"]' 'x = 1' >greeter.toml",    Fails(78, "unknown key 'x'")),
    ("printf %s 'mode = \"\\n\\u0000\"' >greeter.toml",          Fails(78, "is no value for 'mode'")),
    ("printf %s 'message = \"{a\\u001bb}\"' >greeter.toml",      Fails(78, "unknown placeholder")),
    ("printf %200000s | tr ' ' '[' >greeter.toml",          Fails(78, "no TOML")),
    ("{ printf 'a = '; printf %200000s | tr ' ' '['; } >greeter.toml", Fails(78, "greeter.toml:1:")),
    ("printf 'a%.0s.' $(seq 200000) >greeter.toml; echo 'b = 1' >>greeter.toml", Fails(78, "greeter.toml:1:")),
    ("printf 'a = { %.0s' $(seq 100000) >greeter.toml",     Fails(78, "greeter.toml:1:")),
    ("{ printf '['; printf 'greeting.%.0s' $(seq 100000); echo 'a]'; } >greeter.toml", Fails(78, "greeter.toml:1:")),
    ("echo 'limits.connections = 9223372036854775808' >greeter.toml", Fails(78, "greeter.toml:1:")),
    ("echo 'limits.connections = -1' >greeter.toml",        Fails(78, "takes a whole number from 1 to 1000000")),
    ("echo 'limits.connections = inf' >greeter.toml",       Fails(78, "inf is no value for 'connections'")),
    ("echo 'limits.idle_timeout = \"99999999999999999999y\"' >greeter.toml", Fails(78, "is no value for 'idle_timeout'")),
    ("echo 'limits.write_timeout = \"18446744073709551615s\"' >greeter.toml", Fails(78, "is no value for 'write_timeout'")),
    ("echo 'limits = 5' >greeter.toml",                     Fails(78, "greeter.toml:1:")),
    ("{ printf 'message = \"'; printf %1000000s; echo '\"'; } >greeter.toml", Greets("  *  \n")),
    ("echo 'message_file = \"nowhere\"' >greeter.toml",     Fails(78, "greeter.toml:1:16: no file '")),
    ("printf %s 'message_file = \"a\\nb\"' >greeter.toml",       Fails(78, "greeter.toml:1:16: no file '")),
    ("printf %s 'message_file = \"a\\u0000b\"' >greeter.toml",   Fails(78, "cannot be read")),
    ("echo 'message_file = \"\"' >greeter.toml",            Fails(78, "is no regular file")),
    ("echo 'message_file = \"/dev/stdin\"' >greeter.toml",  Greets("\n")),
    ("echo 'message_file = \"/proc/self/fd/3\"' >greeter.toml", Fails(78, "is no regular file")),
    ("echo 'message_file = \"m\"' >greeter.toml; mkfifo m", Fails(78, "is no regular file")),
    ("echo 'message_file = \"m\"' >greeter.toml; truncate -s 1G m", Fails(78, "m: is longer than")),
    ("echo 'message_file = \"m\"' >greeter.toml; ln -s m m", Fails(78, "m: cannot be read: ")),
    ("echo 'message_file = \"m\"' >greeter.toml; touch m; chmod 0 m", Fails(78, "m: cannot be read: permission denied")),
    ("echo 'message_file = \"m\"' >greeter.toml; printf 'a\n{b}' >m", Fails(78, "m:2:1: unknown placeholder '{b}'")),
    ("echo 'message_file = \"m\"' >greeter.toml; printf 'a\\033{{}}' >m", Greets("a\u{1b}{}\n")),
    (": >greeter.toml; touch greeter.toml.d",               Fails(78, "greeter.toml.d: cannot be read: not a directory; ")),
    (": >greeter.toml; mkdir -m 0 greeter.toml.d",          Fails(78, "greeter.toml.d: cannot be read: permission denied")),
    (": >greeter.toml; ln -s greeter.toml.d greeter.toml.d", Fails(78, "greeter.toml.d: cannot be read: ")),
    (": >greeter.toml; mkdir greeter.toml.d; mkfifo greeter.toml.d/a.toml", Fails(78, "a.toml: is no regular file")),
    (": >greeter.toml; mkdir greeter.toml.d; ln -s a.toml greeter.toml.d/a.toml", Fails(78, "a.toml: cannot be read: ")),
    (": >greeter.toml; mkdir greeter.toml.d; echo x >\"greeter.toml.d/$(printf 'a\\nb\\033').toml\"", Fails(78, "no TOML")),
    (": >greeter.toml; mkdir greeter.toml.d; echo x >\"greeter.toml.d/$(printf '\\377').toml\"", Fails(78, "no TOML")),
    (": >greeter.toml; mkdir greeter.toml.d; cd greeter.toml.d; seq -f %g.toml 5000 | xargs touch; cd ..", Greets(ACCEPT)),
    ("echo 'message = \"{socket} {mode} {{time}}\"' >greeter.toml", Greets("unknown accept {time}\n")),
];

/// Who started us, as far as the environment tells, with a listening socket.
#[rustfmt::skip]
pub const MANAGERS: &[(&str, End)] = &[
    ("NOTIFY_SOCKET=/nonexistent/notify",            Says(ACCEPT, "cannot tell the service manager at NOTIFY_SOCKET")),
    ("NOTIFY_SOCKET=@greeter-nobody-$$",             Says(ACCEPT, "cannot tell the service manager at NOTIFY_SOCKET")),
    ("NOTIFY_SOCKET=$PWD/gone",                      Says(ACCEPT, "cannot tell the service manager at NOTIFY_SOCKET")),
    ("NOTIFY_SOCKET=$PWD",                           Says(ACCEPT, "cannot tell the service manager at NOTIFY_SOCKET")),
    ("NOTIFY_SOCKET=$PWD/stream",                    Says(ACCEPT, "cannot tell the service manager at NOTIFY_SOCKET")),
    ("NOTIFY_SOCKET=$PWD/$(printf %0200d 1)",        Says(ACCEPT, "cannot tell the service manager at NOTIFY_SOCKET")),
    ("NOTIFY_SOCKET=vsock:2:1234",                   Says(ACCEPT, "cannot tell the service manager at NOTIFY_SOCKET")),
    ("NOTIFY_SOCKET=",                               Greets(ACCEPT)),
    ("NOTIFY_SOCKET=@",                              Greets(ACCEPT)),
    ("NOTIFY_SOCKET=$(printf '\\377')",              Greets(ACCEPT)),
    ("WATCHDOG_USEC=-1",                             Greets(ACCEPT)),
    ("WATCHDOG_USEC=1",                              Greets(ACCEPT)),
    ("WATCHDOG_USEC=18446744073709551615",           Greets(ACCEPT)),
    ("WATCHDOG_USEC=soon WATCHDOG_PID=$$",           Greets(ACCEPT)),
    ("WATCHDOG_USEC=1000000 WATCHDOG_PID=1",         Greets(ACCEPT)),
    ("JOURNAL_STREAM=",                              Says(ACCEPT, "greeter: listening on 127.0.0.1:")),
    ("JOURNAL_STREAM=journal",                       Says(ACCEPT, "greeter: listening on 127.0.0.1:")),
    ("JOURNAL_STREAM=1:2:3",                         Says(ACCEPT, "greeter: listening on 127.0.0.1:")),
    ("JOURNAL_STREAM=-1:99999999999999999999",       Says(ACCEPT, "greeter: listening on 127.0.0.1:")),
    ("JOURNAL_STREAM=$(printf '\\377')",             Says(ACCEPT, "greeter: listening on 127.0.0.1:")),
    ("JOURNAL_STREAM=$(stat -c %d:%i /)",            Says(ACCEPT, "greeter: listening on 127.0.0.1:")),
    ("CONFIGURATION_DIRECTORY=.:::$(printf '\\377')", Greets(ACCEPT)),
    ("RUST_LOG=trace RUST_BACKTRACE=full",           Greets(ACCEPT)),
];

/// The kernel gives less than is needed, with a listening socket.
#[rustfmt::skip]
pub const SHORTAGES: &[(&str, &str, End)] = &[
    (FEW, "3<&0", Fails(1, "cannot prepare to wait for clients: too many open files")),
    (FULL,                                 "3<&0 0</dev/null 2>&9", Greets(ACCEPT)),
];

/// The same with one client: setup, environment and redirections.
#[rustfmt::skip]
pub const INSTANCES: &[(Handed, &str, &str, &str, End)] = &[
    (Client, "touch greeter.toml", "NOTIFY_SOCKET=$PWD/gone",           "3<&0 0</dev/null", Says(ACCEPTED, "greeted 127.0.0.1 port")),
    (Client, "touch greeter.toml", "NOTIFY_SOCKET=$PWD",                "3<&0 0</dev/null", Says(ACCEPTED, "greeted 127.0.0.1 port")),
    (Client, "touch greeter.toml", "NOTIFY_SOCKET=@greeter-nobody-$$",  "3<&0 0</dev/null", Says(ACCEPTED, "greeted 127.0.0.1 port")),
    (Client, "touch greeter.toml", "JOURNAL_STREAM=$(stat -c %d:%i /)", "3<&0 0</dev/null", Says(ACCEPTED, "greeter: greeted 127.0.0.1 port")),
    (Client, "touch greeter.toml", "GREETER=",                          "3<&0 0</dev/null 2>/dev/full", Greets(ACCEPTED)),
    (Client, FEW,                  "GREETER=",                          "3<&0", Greets(ACCEPTED)),
    (Client, "touch greeter.toml", "JOURNAL_STREAM=$(stat -c %d:%i stderr)", "3<&0 0</dev/null", Says(ACCEPTED, "<5>greeted 127.0.0.1 port")),
    (Client, "mkfifo greeter.toml", "JOURNAL_STREAM=$(stat -c %d:%i stderr)", "3<&0 0</dev/null", Fails(78, "<3>")),
    // The truth: every line has its priority in front, and is dropped where it would have to wait.
    (ClientAndJournal,     "touch greeter.toml",  STREAM,               "3<&0 0</dev/null 2>&1", Says(ACCEPTED, "<5>greeted 127.0.0.1 port")),
    (ClientAndJournal,     "mkfifo greeter.toml", STREAM,               "3<&0 0</dev/null 2>&1", Fails(78, "<3>")),
    (ClientAndFullJournal, "touch greeter.toml",  STREAM,               "3<&0 0</dev/null 2>&1", Greets(ACCEPTED)),
    (ClientAndFullJournal, "mkfifo greeter.toml", STREAM,               "3<&0 0</dev/null 2>&1", Silent(78)),
];

/// stdout is, and stderr will be, the stream to the journal.
const STREAM: &str = "JOURNAL_STREAM=$(stat -L -c %d:%i /proc/$$/fd/1)";

/// Of the descriptors that there may be all but two are taken; the loader needs those.
const FEW: &str = "touch greeter.toml; ulimit -n 11; \
    exec 4</dev/null 5<&4 6<&4 7<&4 8<&4";

/// stderr is a pipe that is full and stays so: a journal that takes nothing.
const FULL: &str = "touch greeter.toml; mkfifo full; exec 9<>full; \
    dd if=/dev/zero of=full bs=4096 count=1024 oflag=nonblock 2>/dev/null || true";

/// What happens to the settings while we run; the old ones stay in force.
#[rustfmt::skip]
pub const RELOADS: &[(&str, &str)] = &[
    ("echo 'message_file = \"m\"' >greeter.toml; echo old >m",   "rm m"),
    ("echo 'message_file = \"m\"' >greeter.toml; echo old >m",   "rm m; mkfifo m"),
    ("echo 'message_file = \"m\"' >greeter.toml; echo old >m",   "chmod 0 m"),
    ("echo 'message_file = \"m\"' >greeter.toml; echo old >m",   "truncate -s 1G m"),
    ("echo 'message_file = \"m\"' >greeter.toml; echo old >m",   "printf 'new {' >m"),
    ("echo 'message = \"old\"' >greeter.toml",                   "rm greeter.toml"),
    ("echo 'message = \"old\"' >greeter.toml",                   "rm greeter.toml; mkdir greeter.toml"),
    ("echo 'message = \"old\"' >greeter.toml",                   "rm greeter.toml; ln -s greeter.toml greeter.toml"),
    ("echo 'message = \"old\"' >greeter.toml",                   "printf '\\377' >greeter.toml"),
    ("echo 'message = \"old\"' >greeter.toml",                   "echo 'mode = \"inet\"' >greeter.toml"),
    ("echo 'message = \"old\"' >greeter.toml",                   "mkfifo greeter.toml.d"),
];
