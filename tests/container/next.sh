# shellcheck shell=bash disable=SC2154 # container is of lib.sh, before, pid and pids are of the test
# The next releases of the packages, for tests of upgrades: the same files, with changed
# defaults. They are built in the container, without compiling anything.

# Builds an RPM from existing files, without compiling or stripping anything.
build_rpm() {
	run rpmbuild -bb --nodeps --define "_rpmdir /root/repository" --define "_sourcedir /root/rpm" \
		--define "debug_package %{nil}" --define "__os_install_post %{nil}" \
		"$@" >"$container/rpmbuild.log" 2>&1 || fail "rpmbuild $* failed: $(cat "$container/rpmbuild.log")"
}

# Builds the next release of the RPM in /root/repository, where the current one is. The
# spec file is the real one without the build. Needs rpm/ and tests/container/rpm/ in
# /root/rpm.
build_next_rpm() {
	run sh -euc '
		cd /root/rpm
		mkdir root
		cat /root/repository/greeter-[0-9]*.rpm | rpm2archive - | tar -xz -C root
		mkdir licenses
		mv root/usr/share/licenses/*/* licenses/
		rm -r root/usr/share/licenses root/usr/lib/.build-id
		for name in greeter greeter-accepted; do
			echo "# the next release" >>root/etc/greeter/$name.toml
		done
		awk '\''
			/^Release:/ { $2 = 2 }
			/^%(prep|build|check)$/ { drop = 1 }
			/^%prep$/ { print "%prep\n%setup -q -c -T\ncp /root/rpm/licenses/* ." }
			/^%install$/ { print "%install\ncp -a /root/rpm/root/. %{buildroot}\nmkdir -p %{buildroot}%{_rundir}/greeter-root"; drop = 1 }
			$0 == "%if %{defined systemd_pre}" || /^%(post|preun|postun|posttrans|files)( |$)/ { drop = 0 }
			!drop { print }
		'\'' greeter.spec >next.spec'
	build_rpm --load=/root/rpm/macros.systemd /root/rpm/next.spec
}

# build_next_deb DEB: builds the next release of a Debian package in /root/packages as
# next.deb.
build_next_deb() {
	copy_in "$1" "$repository/tests/container/next-deb" /root/packages
	run /root/packages/next-deb "/root/packages/${1##*/}" /root/packages/next.deb \
		>"$container/next.log" 2>&1 || fail "$(cat "$container/next.log")"
}

# The listening sockets, with their inode numbers.
listening_sockets() { run ss --no-header --listening --tcp --extended --numeric | grep -Eo ':(400[0-2]|252[5-8]) .*ino:[0-9]+' | sort; }

# After an upgrade: the sockets are those of "$before", the running services have other
# processes than "$pid" and "${pids[PORT]}", the idle instance on port 2527 is idle, and
# the stopped one on port 2528 is stopped.
expect_upgraded() {
	expect "$before" listening_sockets
	expect active run systemctl is-active greeter.service
	[[ $(property MainPID greeter.service) != "$pid" ]] || fail "the service was not restarted"
	for port in 2525 2526; do
		expect active run systemctl is-active "greeter@$port.service"
		[[ $(property MainPID "greeter@$port.service") != "${pids[$port]}" ]] || fail "the instance on port $port was not restarted"
	done
	note "$(grep -c . <<<"$before") sockets with the same inodes, 3 services with new processes"
	expect active run systemctl is-active greeter@2527.socket
	expect_status 3 run systemctl is-active greeter@2527.service greeter@2528.socket greeter@2528.service
	expect $'enabled\nenabled\nenabled\nenabled' run systemctl is-enabled greeter@252{5,6,7,8}.socket
}
