#!/bin/bash
# The container image of `make image` with Podman and the quadlet of greeter(7): socket
# activation, status text, reload, and a container without a network or a shell.
image=podman packages="podman"
. "$(dirname "$0")/lib.sh"

# block N: prints the N-th block of the recipe, as a reader would copy it.
block() {
	local found
	found=$(awk -v wanted="$1" '
		/^# / { inside = $0 == "# IN A CONTAINER, WITH PODMAN"; next }
		/^```/ { open = !open; if (inside && open) count++; next }
		inside && open && count == wanted' "$repository/man/greeter.7.scd" | sed 's/\\\\/\\/g')
	[[ -n $found ]] || fail "greeter(7) has no block $1 on Podman"
	echo "$found"
}

create_container
archive=("$repository"/dist/greeter-*-image.tar)
[[ -e ${archive[0]} ]] || fail "there is no image in dist/; run 'make image' first"
copy_in "${archive[0]}" /root
# What a container in a container requires.
write /etc/containers/storage.conf <<<$'[storage]\ndriver = "vfs"\nrunroot = "/run/containers/storage"\ngraphroot = "/var/lib/containers/storage"'
write /etc/containers/containers.conf <<<$'[containers]\nkeyring = false\npids_limit = 0'
mkdir -p "$container/root/etc/greeter/greeter.toml.d"
boot
status_text() { property StatusText greeter-podman.service; }

check "Podman imports the image, which has one file"
run sh -euc "cd /root && $(block 1)" >"$container/import" 2>&1 || fail "$(cat "$container/import")"
expect greeter tar -tf "${archive[0]}"

check "the first connection starts the container; IPv4 and IPv6"
block 2 | write /etc/systemd/system/greeter-podman.socket
block 3 | write /etc/containers/systemd/greeter-podman.container
run sh -euc "$(block 4)" 2>/dev/null
expect_status 3 run systemctl is-active greeter-podman.service
expect $'This is a test\n' greeting 127.0.0.1:4000
expect $'This is a test\n' greeting '[::1]:4000'
expect active run systemctl is-active greeter-podman.service

check "the service has its status text, and its log in the journal"
expect_within 5 eval 'status_text | grep -q "^2 greetings sent, 0 open connections"'
run journalctl --sync
expect_match "greeted 127.0.0.1 port [0-9]+ on 'greeter', 15 bytes" \
	run journalctl --quiet --no-pager --output=cat --unit=greeter-podman.service

check "the container has no network, no privileges and no shell"
name=$(run podman ps --format '{{.Names}}')
pid=$(run podman inspect --format '{{.State.Pid}}' "$name")
expect $'CapPrm:\t0000000000000000' run grep CapPrm "/proc/$pid/status"
expect $'NoNewPrivs:\t1' run grep NoNewPrivs "/proc/$pid/status"
expect 65534 run stat --format=%u "/proc/$pid"
expect lo run nsenter --net --target "$pid" ls /sys/class/net
expect_status 127 run podman exec "$name" sh

check "settings of the host; after a stop the next connection starts it again"
write /etc/greeter/greeter.toml.d/50-text.toml <<<'message = "Back at noon"'
run systemctl stop --no-warn greeter-podman.service
expect $'Back at noon\n' greeting 127.0.0.1:4000
run systemctl stop greeter-podman.socket
expect_status 0 is_closed 127.0.0.1:4000
expect_nothing_failed
end_of_tests
