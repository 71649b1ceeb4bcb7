# greeter's one entry point: builds, installs, packages and tests it.
#
# `make help` lists the targets. The list of installed files is in `install`
# and nowhere else: debian/rules and rpm/greeter.spec call it, so that no two
# packages can differ. It has no build step inside, so that `sudo make install`
# compiles nothing as root.

# Where things go, by the names that the GNU coding standards give them. Each is
# derived from the ones above it, so that `make install prefix=/usr` is enough.
prefix = /usr/local
exec_prefix = $(prefix)
bindir = $(exec_prefix)/bin
# Not under $(prefix): /etc/greeter is where the program looks.
sysconfdir = /etc
datarootdir = $(prefix)/share
datadir = $(datarootdir)
mandir = $(datarootdir)/man
docdir = $(datarootdir)/doc/greeter
# Not $(libdir): systemd reads lib, never lib64, under /usr and /usr/local alike.
systemddir = $(prefix)/lib/systemd
systemdsystemunitdir = $(systemddir)/system
systemduserunitdir = $(systemddir)/user
systemdsystempresetdir = $(systemddir)/system-preset
systemduserpresetdir = $(systemddir)/user-preset
catalogdir = $(systemddir)/catalog
sysusersdir = $(prefix)/lib/sysusers.d
# What a service that greets one client sees as "/".
rootdir = $(prefix)/lib/greeter/root
bashcompletiondir = $(datadir)/bash-completion/completions
zshcompletiondir = $(datadir)/zsh/site-functions
fishcompletiondir = $(datadir)/fish/vendor_completions.d

INSTALL = install
INSTALL_PROGRAM = $(INSTALL) -m 0755
INSTALL_DATA = $(INSTALL) -m 0644
CARGO = cargo
SCDOC = scdoc
DESTDIR =

# The program that `install` takes; a package that builds elsewhere names its own.
PROGRAM = target/release/greeter

units = greeter.socket greeter.service \
	greeter-accepted.socket greeter-accepted@.service \
	greeter-inet.socket greeter-inet@.service
systemunits = $(units) greeter-netns.service
settings = greeter.toml greeter-accepted.toml greeter-inet.toml
manuals = greeter.8 greeter.toml.5 greeter.7
documents = README.md CHANGELOG.md SECURITY.md
examples = $(wildcard systemd/examples/*)
# The places in $(rootdir) that something is mounted on. systemd would make what
# is missing, but /usr may be read-only.
places = dev etc/greeter home proc root run sys tmp usr var/tmp

.DELETE_ON_ERROR:
.SUFFIXES:

.PHONY: all build man install uninstall test deb rpm demo check soak load bench fuzz sanitize audit clean help

all: build man ## the program and its manual (the default)

build: ## compile target/release/greeter
	$(CARGO) build --release --locked

man: $(manuals:%=target/man/%) ## the manual pages, in target/man

# In two steps: of a pipe make would see only whether awk failed.
target/man/%: man/%.scd man/tidy.awk
	@mkdir -p $(@D)
	$(SCDOC) <$< >$@.raw
	awk -f man/tidy.awk $@.raw >$@
	@rm -f $@.raw

install: ## copy what `make` made into $(DESTDIR)$(prefix) and the rest
	@test -e $(PROGRAM) || { echo >&2 "make install: '$(PROGRAM)' is missing; run 'make' first"; exit 1; }
	@for page in $(manuals); do test -e target/man/$$page || \
		{ echo >&2 "make install: 'target/man/$$page' is missing; run 'make man' first"; exit 1; }; done
	$(INSTALL) -d $(DESTDIR)$(bindir) $(DESTDIR)$(sysconfdir)/greeter \
		$(DESTDIR)$(mandir)/man5 $(DESTDIR)$(mandir)/man7 $(DESTDIR)$(mandir)/man8 \
		$(DESTDIR)$(docdir)/examples \
		$(DESTDIR)$(systemdsystemunitdir) $(DESTDIR)$(systemduserunitdir) \
		$(DESTDIR)$(systemdsystempresetdir) $(DESTDIR)$(systemduserpresetdir) \
		$(DESTDIR)$(sysusersdir) $(DESTDIR)$(catalogdir) \
		$(DESTDIR)$(bashcompletiondir) $(DESTDIR)$(zshcompletiondir) $(DESTDIR)$(fishcompletiondir)
	$(INSTALL_PROGRAM) $(PROGRAM) $(DESTDIR)$(bindir)/greeter
	$(INSTALL) -d $(places:%=$(DESTDIR)$(rootdir)/%)
	ln -sfn usr/lib $(DESTDIR)$(rootdir)/lib
	ln -sfn usr/lib64 $(DESTDIR)$(rootdir)/lib64
	@# Settings that are there already may have been edited.
	set -e; for name in $(settings); do \
		test -e $(DESTDIR)$(sysconfdir)/greeter/$$name || \
			$(INSTALL_DATA) etc/$$name $(DESTDIR)$(sysconfdir)/greeter/; \
	done
	@# The units name the program by its full path, which only we know.
	set -e; for unit in $(systemunits:%=system/%) $(units:%=user/%); do \
		case $$unit in system/*) to=$(systemdsystemunitdir);; *) to=$(systemduserunitdir);; esac; \
		to=$(DESTDIR)$$to/$${unit#*/}; \
		sed -e 's|@bindir@|$(bindir)|g' -e 's|@rootdir@|$(rootdir)|g' \
			-e 's|@visible@|$(strip /usr $(filter-out /usr/%,$(bindir)))|g' systemd/$$unit >$$to; \
		chmod 0644 $$to; \
	done
	$(INSTALL_DATA) systemd/system/80-greeter.preset $(DESTDIR)$(systemdsystempresetdir)/
	$(INSTALL_DATA) systemd/user/80-greeter.preset $(DESTDIR)$(systemduserpresetdir)/
	$(INSTALL_DATA) systemd/greeter.sysusers $(DESTDIR)$(sysusersdir)/greeter.conf
	$(INSTALL_DATA) systemd/greeter.catalog $(DESTDIR)$(catalogdir)/
	$(INSTALL_DATA) target/man/greeter.toml.5 $(DESTDIR)$(mandir)/man5/
	$(INSTALL_DATA) target/man/greeter.7 $(DESTDIR)$(mandir)/man7/
	$(INSTALL_DATA) target/man/greeter.8 $(DESTDIR)$(mandir)/man8/
	$(INSTALL_DATA) completions/greeter.bash $(DESTDIR)$(bashcompletiondir)/greeter
	$(INSTALL_DATA) completions/_greeter $(DESTDIR)$(zshcompletiondir)/_greeter
	$(INSTALL_DATA) completions/greeter.fish $(DESTDIR)$(fishcompletiondir)/greeter.fish
	$(INSTALL_DATA) $(documents) $(DESTDIR)$(docdir)/
	$(INSTALL_DATA) $(examples) $(DESTDIR)$(docdir)/examples/

uninstall: ## remove what `make install` with the same variables put there
	rm -f $(DESTDIR)$(bindir)/greeter \
		$(systemunits:%=$(DESTDIR)$(systemdsystemunitdir)/%) \
		$(units:%=$(DESTDIR)$(systemduserunitdir)/%) \
		$(DESTDIR)$(systemdsystempresetdir)/80-greeter.preset \
		$(DESTDIR)$(systemduserpresetdir)/80-greeter.preset \
		$(DESTDIR)$(sysusersdir)/greeter.conf \
		$(DESTDIR)$(catalogdir)/greeter.catalog \
		$(DESTDIR)$(mandir)/man5/greeter.toml.5 \
		$(DESTDIR)$(mandir)/man7/greeter.7 \
		$(DESTDIR)$(mandir)/man8/greeter.8 \
		$(DESTDIR)$(bashcompletiondir)/greeter \
		$(DESTDIR)$(zshcompletiondir)/_greeter \
		$(DESTDIR)$(fishcompletiondir)/greeter.fish
	rm -rf $(DESTDIR)$(docdir) $(DESTDIR)$(rootdir)
	@# Settings that somebody edited are theirs.
	@for name in $(settings); do \
		if cmp -s etc/$$name $(DESTDIR)$(sysconfdir)/greeter/$$name; then \
			rm -f $(DESTDIR)$(sysconfdir)/greeter/$$name; \
		elif test -e $(DESTDIR)$(sysconfdir)/greeter/$$name; then \
			echo "keeping $(DESTDIR)$(sysconfdir)/greeter/$$name, which was edited"; \
		fi; \
	done
	-rmdir $(DESTDIR)$(sysconfdir)/greeter 2>/dev/null

test: man ## the unit and integration tests
	$(CARGO) test --locked

check: ## every test there is, the package's in a booted Debian too
	tools/check

soak: ## the tests under load and faults in full size: about an hour
	tools/install-deps deb container
	tools/build-deb
	tests/container/test-modes.sh soak
	tests/container/test-load.sh soak
	tests/container/test-faults.sh soak
	tests/container/test-instances.sh soak

deb: ## the Debian packages, in dist/, built offline in a clean Debian 13
	tools/install-deps deb
	tools/build-deb

rpm: ## the source and binary RPM, in dist/, built offline in a clean Debian 13
	tools/install-deps rpm
	tools/build-rpm

load: ## target/tools/greeter-load, the load generator, linked statically
	bench/build target/tools

bench: ## measure CPU, memory and losses beside nginx and C
	bench/run

fuzz: ## ten million hostile inputs for each fuzz target
	tools/install-deps rust fuzz
	fuzz/run runs=10000000

sanitize: ## the tests that hand sockets over, under AddressSanitizer
	tools/install-deps rust
	tools/sanitize

audit: ## known vulnerabilities, licences and sources of the dependencies
	tools/install-deps rust
	tools/audit

demo: ## build the package and show it at work in a booted Debian
	tools/install-deps deb container
	tools/build-deb
	tests/container/demo.sh

clean: ## remove what was built, the Debian trees included
	tools/clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 20
