#!/bin/bash
# The signed apt and dnf repositories of `make repo`, served over HTTP in the container:
# greeter is installed by its name and upgraded, and packages with a wrong signature are
# refused.
image=repositories packages="createrepo-c dnf gpg gpg-agent nginx-light reprepro rpm xz-utils"
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/next.sh"

url=http://127.0.0.1:8080
deb=$(package)
rpm=("$repository"/dist/greeter-[0-9]*."$(uname -m)".rpm)
[[ -e ${rpm[0]} ]] || fail "there is no RPM in dist/; run 'make rpm' first"

create_container
rm "$container/root/etc/systemd/system/multi-user.target.wants/nginx.service"
boot
copy_in "$repository/tests/container/rpm" "$repository/rpm" /root
copy_in "${rpm[0]}" /root/repository
build_rpm /root/rpm/stub-packages.spec
build_next_deb "$deb"
build_next_rpm
built=$container/root/root/repository
stubs=("$built"/noarch/{debian,systemd}-[0-9]*.rpm)
current=("$deb" "${rpm[0]}" "${stubs[@]}")
next=("$container/root/root/packages/next.deb" "$built/$(uname -m)"/greeter-*-2.*.rpm "${stubs[@]}")

# make_key FILE: writes a secret key.
make_key() {
	run sh -euc 'export GNUPGHOME=$(mktemp -d)
		gpg --batch --quiet --passphrase "" --quick-generate-key "greeter packages" ed25519 sign
		gpg --batch --armor --export-secret-keys
		gpgconf --kill all' >"$1"
}
make_key "$container/key"
make_key "$container/other-key"

# The repositories of this release and of the next one, and of the next one with another
# key.
served=$container/root/srv
build_repository() {
	SIGNING_KEY=$1 "$repository/tools/build-repository" "$served/$2" "$url/current" "${@:3}" \
		>"$container/repository.log" 2>&1 || fail "$(cat "$container/repository.log")"
}
build_repository "$container/key" this "${current[@]}"
build_repository "$container/key" next "${next[@]}"
build_repository "$container/other-key" foreign "${next[@]}"
write /etc/nginx/nginx.conf <<-'END'
	events {}
	http { server { listen 127.0.0.1:8080; root /srv; } }
END
run systemctl start nginx.service
serve() { ln -sfn "$1" "$served/current"; }

# apt and dnf with empty lists: an older index that is valid would hide an invalid one.
apt_update() {
	run sh -c 'rm -rf /var/lib/apt/lists/*'
	run apt-get update -o APT::Update::Error-Mode=any
}
dnf() { run dnf --assumeyes --releasever=13 "$@"; }
dnf_clean() { run dnf --quiet clean all; }
quietly() { "$@" >"$container/log" 2>&1 || fail "$* failed: $(cat "$container/log")"; }
deb_version() { run dpkg-query --show --showformat='${db:Status-Abbrev}${Version}' greeter; }

check "apt update && apt install greeter, from the signed repository alone"
serve this
run sh -c 'rm -f /etc/apt/sources.list /etc/apt/sources.list.d/*'
cp "$served/this/greeter.sources" "$container/root/etc/apt/sources.list.d/"
quietly apt_update
quietly run apt install -y greeter
version=$(dpkg-deb --field "$deb" Version)
expect "ii $version" deb_version
run systemctl enable --quiet --now greeter.socket
expect $'This is a test\n' greeting 127.0.0.1:4000

check "apt refuses a repository with another key"
serve foreign
expect_status 100 apt_update
[[ $output == *"is not signed"* || $output == *"NO_PUBKEY"* || $output == *"Missing key"* ]] || fail "$output"
expect_status 100 run apt install -y greeter="$version+next"
expect "ii $version" deb_version

check "apt refuses a package that is not the signed one"
cp -r "$served/next" "$served/changed"
changed=("$served"/changed/apt/pool/main/g/greeter/*.deb)
printf x >>"${changed[0]}"
serve changed
quietly apt_update
expect_status 100 run apt install -y --only-upgrade greeter
expect "ii $version" deb_version

check "apt update && apt upgrade, from the signed repository"
serve next
quietly apt_update
quietly run apt upgrade -y
expect "ii $version+next" deb_version
expect $'This is a test\n' greeting 127.0.0.1:4000
quietly run apt purge -y greeter

check "dnf install greeter, from the signed repository alone"
serve this
mkdir -p "$container/root/etc/yum.repos.d"
cp "$served/this/greeter.repo" "$container/root/etc/yum.repos.d/"
mkdir -p "$container/root/etc/pki/rpm-gpg"
cp "$served/this/greeter.asc" "$container/root/etc/pki/rpm-gpg/RPM-GPG-KEY-greeter"
quietly dnf install greeter
expect_match '^greeter-[0-9.]+-1\.' run rpm --query greeter
run systemctl enable --quiet --now greeter.socket
expect $'This is a test\n' greeting 127.0.0.1:4000

check "dnf refuses a repository with another key"
serve foreign
dnf_clean
expect_status 1 dnf upgrade greeter
expect_match '^greeter-[0-9.]+-1\.' run rpm --query greeter

check "dnf refuses a package that is not signed, or by another key"
# The index is signed by the known key.
rm -rf "$served/changed"
for origin in foreign unsigned; do
	cp -r "$served/next" "$served/$origin-package"
	packages=("$served/$origin-package"/dnf/greeter-*.rpm)
	case $origin in
		foreign) cp "$served"/foreign/dnf/greeter-*.rpm "${packages[0]}" ;;
		unsigned) cp "${next[1]}" "${packages[0]}" ;;
	esac
	run createrepo_c --quiet "/srv/$origin-package/dnf"
	copy_in "$container/key" /root
	run sh -euc 'export GNUPGHOME=$(mktemp -d)
		gpg --batch --quiet --import /root/key
		gpg --batch --yes --armor --detach-sign "$1/dnf/repodata/repomd.xml"
		gpgconf --kill all' sh "/srv/$origin-package"
	serve "$origin-package"
	dnf_clean
	expect_status 1 dnf upgrade greeter
	[[ $output == *"not signed"* || $output == *"GPG"* || $output == *"PGP"* ]] || fail "$output"
	expect_match '^greeter-[0-9.]+-1\.' run rpm --query greeter
done

check "dnf upgrade, from the signed repository"
serve next
dnf_clean
quietly dnf upgrade greeter
expect_match '^greeter-[0-9.]+-2\.' run rpm --query greeter
expect $'This is a test\n' greeting 127.0.0.1:4000
expect_nothing_failed
end_of_tests
