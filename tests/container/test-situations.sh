#!/bin/bash
# What an administrator reads when something is wrong: the exact output of `greeter
# --check`, of `systemctl reload` and of `systemctl status`, in tests/fixtures/situations.
# With --update as the argument, the fixtures are written.
. "$(dirname "$0")/lib.sh"

fixtures=$repository/tests/fixtures/situations
update=${1-}

boot
install_greeter
run systemctl enable --quiet --now greeter.socket greeter-accepted.socket greeter-inet.socket
expect $'This is a test\n' greeting 127.0.0.1:4000
cp -a "$container/root/etc/greeter" "$container/settings"
mkdir -p "$container/output"

# shown COMMAND...: the command as typed, its output, and its exit status if it failed.
shown() {
	local status=0
	echo "\$ $*"
	run "$@" 2>&1 || status=$?
	[[ $status == 0 ]] || echo "[exit status $status]"
}

# The part of the status text that is not a count of connections.
status_text() {
	echo '$ systemctl status greeter.service'
	echo "Active: $(property ActiveState greeter.service)"
	echo "Status: $(property StatusText greeter.service | sed -E 's/^[0-9]+ greetings? sent[^;]*(; last client [^;]*)?/…/')"
}

# The settings as installed, in the same directory: the services see this one.
restore_settings() {
	find "$container/root/etc/greeter" -mindepth 1 -delete
	cp -a "$container/settings/." "$container/root/etc/greeter"
}

# situation NAME [CONFIG]: prepared by the shell script on stdin, in /etc/greeter.
situation() {
	local name=$1 config=${2-}
	run sh -euc 'cd /etc/greeter; mkdir -p greeter.toml.d; eval "$1"' . "$(cat)"
	if [[ -n $config ]]; then
		shown greeter --check --config "$config"
	else
		shown greeter --check
		# Only the status: systemctl adds where to look for the reason.
		echo '$ systemctl reload greeter.service'
		run systemctl reload greeter.service >/dev/null 2>&1 || echo "[exit status $?]"
		status_text
	fi >"$container/output/$name"
	restore_settings
	run systemctl reload greeter.service
	compare "$name"
}

compare() {
	[[ $update != --update ]] || cp "$container/output/$1" "$fixtures/$1.txt"
	expect "" diff "$fixtures/$1.txt" "$container/output/$1"
}

[[ $update != --update ]] || mkdir -p "$fixtures"

check "settings: keys, values, modes"
situation unknown-key <<<'echo "mesage = 1" >greeter.toml.d/50.toml'
situation mode-of-another-unit <<<'echo "mode = \"accepted\"" >greeter.toml.d/50.toml'
situation name-with-a-dot <<<'printf "[greeting.mail.example]\nmessage = \"x\"\n" >greeter.toml.d/50.toml'
situation key-in-greeting-itself <<<'printf "[greeting]\nmessage = \"x\"\n" >greeter.toml.d/50.toml'
situation empty-message <<<'echo "message = \"\"" >greeter.toml.d/50.toml'
situation longest-duration <<<'printf "[limits]\nwrite_timeout = \"400d\"\n" >greeter.toml.d/50.toml'
situation utf-16 <<<'printf "\377\376m\0" >greeter.toml.d/50.toml'
situation name-that-no-file-has greter <<<true

check "files: permissions, links, directories"
situation mode-0600 <<<'umask 077; echo "message = \"x\"" >greeter.toml.d/50.toml'
situation directory-0700 <<<'chmod 0700 .'
situation drop-in-directory-0700 <<<'touch greeter.toml.d/50.toml; chmod 0700 greeter.toml.d'
situation file-in-the-place-of-a-directory <<<'rmdir greeter.toml.d; touch greeter.toml.d'
situation directory-in-the-place-of-a-file <<<'mkdir greeter.toml.d/50.toml'
situation dangling-link <<<'ln -s /srv/absent greeter.toml.d/50.toml'
situation link-to-a-home-directory <<<'echo "message = \"x\"" >/home/notice.toml; ln -s /home/notice.toml greeter.toml.d/50.toml'
situation ignored-name <<<'echo "message = \"x\"" >greeter.toml.d/my.conf'

check "message files: missing, hidden, not readable"
situation message-file-missing <<<'echo "message_file = \"absent\"" >greeter.toml.d/50.toml'
situation message-file-dangling <<<'ln -s /srv/absent notice; echo "message_file = \"/etc/greeter/notice\"" >greeter.toml.d/50.toml'
situation message-file-in-home <<<'echo x >/home/notice; echo "message_file = \"/home/notice\"" >greeter.toml.d/50.toml'
situation message-file-in-tmp <<<'echo x >/tmp/notice; chmod 0644 /tmp/notice; echo "message_file = \"/tmp/notice\"" >greeter.toml.d/50.toml'
situation message-file-in-srv <<<'echo x >/srv/notice; echo "message_file = \"/srv/notice\"" >greeter.toml.d/50.toml'
situation message-file-0640 <<<'echo x >notice; chmod 0640 notice; echo "message_file = \"/etc/greeter/notice\"" >greeter.toml.d/50.toml'
situation message-file-utf-16 <<<'printf "\376\377\0x" >notice; echo "message_file = \"/etc/greeter/notice\"" >greeter.toml.d/50.toml'
situation message-file-hidden-from-instances greeter-accepted <<<'echo x >/srv/notice; mkdir -p greeter-accepted.toml.d; echo "message_file = \"/srv/notice\"" >greeter-accepted.toml.d/50.toml'

# drop_in UNIT SETTING: adds a setting to a service, as 'systemctl edit' does.
drop_in() {
	printf '[Service]\n%s\n' "$2" | write "/etc/systemd/system/$1.d/50-test.conf"
	run systemctl daemon-reload
	run systemctl restart greeter.service
}
remove_drop_in() {
	run rm -r "/etc/systemd/system/$1.d"
	run systemctl daemon-reload
	run systemctl restart greeter.service
}

check "a drop-in of the unit that may allow it makes obstacles warnings"
run sh -c 'mkdir /srv/notices; echo x >/srv/notices/text'
# The drop-in of greeter(8).
setting=BindReadOnlyPaths=/srv/notices
expect_status 0 grep -x "$setting" "$repository/man/greeter.8.scd"
drop_in greeter.service "$setting"
situation message-file-in-srv-with-a-drop-in <<<'echo "message_file = \"/srv/notices/text\"" >greeter.toml.d/50.toml'
# It was read.
echo 'message_file = "/srv/notices/text"' | write /etc/greeter/greeter.toml.d/50.toml
run systemctl reload greeter.service
expect $'x\n' greeting 127.0.0.1:4000
restore_settings
remove_drop_in greeter.service
drop_in greeter.service SupplementaryGroups=adm
situation message-file-0640-with-a-drop-in <<<'echo x >notice; chown :adm notice; chmod 0640 notice; echo "message_file = \"/etc/greeter/notice\"" >greeter.toml.d/50.toml'
remove_drop_in greeter.service
drop_in greeter-accepted@.service BindReadOnlyPaths=/srv/notice
situation message-file-of-instances-with-a-drop-in greeter-accepted <<<'echo y >/srv/notice; mkdir -p greeter-accepted.toml.d; echo "message_file = \"/srv/notice\"" >greeter-accepted.toml.d/50.toml'
echo 'message_file = "/srv/notice"' | write /etc/greeter/greeter-accepted.toml.d/50.toml
expect $'y\n' greeting 127.0.0.1:4001
restore_settings
remove_drop_in greeter-accepted@.service

check "a credential as the message file"
echo credential | write /srv/notice
drop_in greeter.service LoadCredential=notice:/srv/notice
echo 'message_file = "/run/credentials/greeter.service/notice"' | write /etc/greeter/greeter.toml.d/50.toml
run systemctl restart greeter.service
expect $'credential\n' greeting 127.0.0.1:4000
expect_status 0 run greeter --check
expect_match 'unless LoadCredential= in /etc/systemd/system/greeter.service.d/50-test.conf allows it' echo "$output"
restore_settings
remove_drop_in greeter.service

check "/etc/greeter is a link to a directory that is not visible"
run mv /etc/greeter /srv/settings
run ln -s /srv/settings /etc/greeter
run sh -c 'mkdir -p /etc/greeter/greeter.toml.d; echo "message = \"linked\"" >/etc/greeter/greeter.toml.d/50.toml'
run systemctl restart greeter.service
expect $'linked\n' greeting 127.0.0.1:4000
expect_match '^settings are valid$' run greeter --check
run rm /etc/greeter /srv/settings/greeter.toml.d/50.toml
run mv /srv/settings /etc/greeter
run systemctl restart greeter.service

check "without the root directory the service fails; systemd-tmpfiles creates it, as in greeter(8)"
run systemctl stop --no-warn greeter.service
run rm -r /run/greeter-root
expect_status 1 run systemctl start greeter.service
expect 226 property ExecMainStatus greeter.service
run systemd-tmpfiles --create greeter-root.conf
run systemctl restart greeter.service
expect $'This is a test\n' greeting 127.0.0.1:4000

check "a directory of settings that was replaced: a reload changes nothing, a restart applies it"
echo 'message = "before"' | write /etc/greeter/greeter.toml.d/50.toml
run systemctl reload greeter.service
run rm -r /etc/greeter
run mkdir /etc/greeter
restore_settings
run systemctl reload greeter.service
expect $'before\n' greeting 127.0.0.1:4000
expect_match 'reload failed: /etc/greeter: was removed or replaced since the service started; restart the service' \
	property StatusText greeter.service
run systemctl restart greeter.service
expect $'This is a test\n' greeting 127.0.0.1:4000

# socket NAME: a socket unit on stdin that greeter.service cannot serve.
socket() {
	local name=$1
	run systemctl stop --no-warn greeter.socket greeter.service
	write /etc/systemd/system/greeter.socket.d/50-test.conf
	run systemctl daemon-reload
	run systemctl start greeter.socket
	run systemctl start greeter.service >/dev/null 2>&1 || :
	# The service is started again and again; the status stays meanwhile.
	property StatusText greeter.service >"$container/output/$name"
	run systemctl stop --no-warn greeter.socket greeter.service
	run rm -r /etc/systemd/system/greeter.socket.d
	run systemctl daemon-reload
	compare "$name"
}

check "sockets: what to change in which unit"
socket datagram <<<$'[Socket]\nListenStream=\nListenDatagram=127.0.0.1:4000'
socket sequential-packet <<<$'[Socket]\nListenStream=\nListenSequentialPacket=/run/greeter-test'
run systemctl start greeter.socket
run systemctl stop --no-warn greeter.socket
run systemctl start greeter.service >/dev/null 2>&1 || :
run systemctl reset-failed 'greeter*' || :

check "without /etc/greeter every unit greets with its default"
run systemctl start greeter.socket
run rm -r /etc/greeter
run systemctl restart greeter.service
expect $'This is a test\n' greeting 127.0.0.1:4000
expect $'This socket was already accepted\n' greeting 127.0.0.1:4001
expect $'This socket was passed on stdin/stdout\n' greeting 127.0.0.1:4002

check "a link to /dev/null masks a file, also where /dev/null does not exist"
run mkdir -p /etc/greeter/greeter.toml.d
run ln -s /dev/null /etc/greeter/greeter.toml.d/50.toml
for prepare in true "mount -t tmpfs tmpfs /dev"; do
	expect_match 'settings are valid' run unshare --mount sh -euc "$prepare; greeter --check"
done
end_of_tests
