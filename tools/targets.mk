# The targets of the Makefile for those who change, package or release greeter.

# The first words of the steps of `make check`: all of them if this is empty.
STEPS ?=

# Where the repositories of `make repo` will be served.
REPOSITORY_URL = https://packages.example.org/greeter

.PHONY: check check-releases check-versions archive-check soak deb deb-arm64 rpm image \
	load bench fuzz anomaly mutants sanitize audit dist release repo reproduce demo demo-short

check: ## run all tests that this machine permits, on packages in booted containers too
	tools/check $(STEPS)

check-releases: ## test the Debian package on Debian 12, 13 and testing
	tools/install-deps rust deb container
	bench/build target/tools
	tools/build-deb
	set -e; for suite in bookworm trixie testing; do tests/container/test-releases.sh $$suite; done
	set -e; for suite in bookworm testing; do \
		for test in maintenance tls administration; do tests/container/test-$$test.sh $$suite; done; \
	done
	tests/container/test-proxies.sh testing

check-versions: ## run the tests with the oldest and the newest version of each crate
	tools/install-deps rust tests curl
	tools/test-versions

archive-check: ## what `make check` omits, as it takes long or depends on sid
	tools/check --archive

soak: ## run the load and fault tests at full size (about one hour)
	tools/install-deps rust deb container
	bench/build target/tools
	tools/build-deb
	tests/container/test-modes.sh soak
	tests/container/test-load.sh soak
	tests/container/test-faults.sh soak
	tests/container/test-instances.sh soak
	tests/container/test-maintenance.sh soak
	tests/container/test-tls.sh soak

deb: ## build the Debian packages in dist/, offline in a clean Debian 13
	tools/install-deps deb
	tools/build-deb

deb-arm64: ## build the Debian package for arm64, and test it under qemu
	tools/install-deps deb
	HOST_ARCHITECTURE=arm64 tools/build-deb
	HOST_ARCHITECTURE=arm64 tools/lint-deb
	HOST_ARCHITECTURE=arm64 tools/test-cross

rpm: ## build the source and binary RPMs in dist/, offline in a clean Debian 13
	tools/install-deps rpm
	tools/build-rpm

image: ## build a container image in dist/, for podman import, in a clean Debian 13
	tools/install-deps rpm
	tools/build-image

load: ## build the load generator target/tools/greeter-load, statically linked
	bench/build target/tools

bench: ## compare CPU, memory and lost connections with nginx and C programs
	bench/run

fuzz: ## run each fuzz target with ten million inputs
	tools/install-deps rust fuzz
	fuzz/run runs=10000000

anomaly: ## inject each error at each system call (about five minutes)
	tools/install-deps rust tests
	$(CARGO) test --locked --release --test anomaly -- --full

mutants: ## change the source in small ways, and list what no test notices (an hour)
	tools/install-deps rust tests curl
	tools/mutants

sanitize: ## run the socket tests under AddressSanitizer
	tools/install-deps rust tests curl
	tools/sanitize

audit: ## check the dependencies: known vulnerabilities, licences, sources
	tools/install-deps rust
	tools/audit

dist: deb deb-arm64 rpm image ## build all files of a release in dist/, for amd64 and arm64, with signed checksums
	tools/install-deps rust dist
	tools/build-dist

release: ## check that everything names VERSION, build dist/, and tag the commit
	tools/release $(VERSION)

repo: ## build signed apt and dnf repositories of the packages in dist/repo
	tools/install-deps deb rpm
	tools/build-deb
	tools/build-rpm
	tools/build-repository dist/repo $(REPOSITORY_URL)

reproduce: ## build the packages twice in different environments, and compare them
	tools/install-deps deb rpm
	tools/build-deb
	tools/build-rpm
	tools/build-deb --reproduce
	tools/build-rpm --reproduce

demo: ## show the modes, then, if the machine permits it, the package in a booted container
	tools/demo

demo-short: ## show the modes, which needs only Rust: no root, no package, no image
	tools/demo --short
