# Builds, installs and tests greeter. `make help` lists the targets.
#
# `install` contains the only list of installed files: debian/rules and
# rpm/greeter.spec call it, so that all packages have the same files. It does not
# build anything, so that `sudo make install` compiles nothing as root.

# Installation directories, named as in the GNU coding standards. Each is derived
# from the ones above it, so that `make install prefix=/usr` is sufficient.
prefix = /usr/local
exec_prefix = $(prefix)
bindir = $(exec_prefix)/bin
# Not under $(prefix): the program reads /etc/greeter.
sysconfdir = /etc
datarootdir = $(prefix)/share
datadir = $(datarootdir)
mandir = $(datarootdir)/man
docdir = $(datarootdir)/doc/greeter
# Not $(libdir): systemd reads lib, never lib64, in /usr and /usr/local.
systemddir = $(prefix)/lib/systemd
systemdsystemunitdir = $(systemddir)/system
systemduserunitdir = $(systemddir)/user
systemdsystempresetdir = $(systemddir)/system-preset
systemduserpresetdir = $(systemddir)/user-preset
catalogdir = $(systemddir)/catalog
# Not $(libdir) either: systemd-tmpfiles(8) reads lib.
tmpfilesdir = $(prefix)/lib/tmpfiles.d
bashcompletiondir = $(datadir)/bash-completion/completions
zshcompletiondir = $(datadir)/zsh/site-functions
fishcompletiondir = $(datadir)/fish/vendor_completions.d

INSTALL = install
INSTALL_PROGRAM = $(INSTALL) -m 0755
INSTALL_DATA = $(INSTALL) -m 0644
CARGO = cargo
SCDOC = scdoc
DESTDIR =

# The program to install; a package that builds it elsewhere sets this.
PROGRAM = target/release/greeter

sockets = greeter.socket greeter@.socket greeter-accepted.socket greeter-inet.socket
services = greeter.service greeter@.service greeter-accepted@.service greeter-inet@.service
preset = 95-greeter.preset
# HAProxy in front of greeter@PORT.socket, for the system only.
system_units = greeter-tls@.socket greeter-tls@.service
settings = greeter.toml greeter-accepted.toml greeter-inet.toml
manuals = greeter.8 greeter.toml.5 greeter.7
documents = README.md CHANGELOG.md SECURITY.md
examples = $(wildcard systemd/examples/*)
# The services see only /usr: add the program's directory if it is elsewhere.
add_bindir = $(if $(filter /usr/%,$(bindir)),,-e 's|^BindReadOnlyPaths=/usr |&$(bindir) |')

.DELETE_ON_ERROR:
.SUFFIXES:

.PHONY: all build man install uninstall test clean help

all: build man ## build the program and the manual pages (the default)

build: ## compile target/release/greeter
	$(CARGO) build --release --locked

man: $(manuals:%=target/man/%) ## generate the manual pages in target/man

# scdoc turns hyphenation off before the macro .TH, which turns it on again. Hyphenation
# would split the names of keys.
target/man/%: man/%.scd
	@mkdir -p $(@D)
	$(SCDOC) <$< >$@
	sed -i '/^\.TH /a .nh' $@

install: ## copy what `make` built to $(DESTDIR)$(prefix) and $(DESTDIR)$(sysconfdir)
	@test -e $(PROGRAM) || { echo >&2 "make install: '$(PROGRAM)' is missing; run 'make' first"; exit 1; }
	@for page in $(manuals); do test -e target/man/$$page || \
		{ echo >&2 "make install: 'target/man/$$page' is missing; run 'make man' first"; exit 1; }; done
	$(INSTALL) -d $(DESTDIR)$(bindir) $(settings:%=$(DESTDIR)$(sysconfdir)/greeter/%.d) \
		$(DESTDIR)$(mandir)/man5 $(DESTDIR)$(mandir)/man7 $(DESTDIR)$(mandir)/man8 \
		$(DESTDIR)$(docdir)/examples $(DESTDIR)$(docdir)/docs \
		$(DESTDIR)$(systemdsystemunitdir) $(DESTDIR)$(systemduserunitdir) \
		$(DESTDIR)$(systemdsystempresetdir) $(DESTDIR)$(systemduserpresetdir) \
		$(DESTDIR)$(catalogdir) $(DESTDIR)$(tmpfilesdir) \
		$(DESTDIR)$(bashcompletiondir) $(DESTDIR)$(zshcompletiondir) $(DESTDIR)$(fishcompletiondir)
	$(INSTALL_PROGRAM) $(PROGRAM) $(DESTDIR)$(bindir)/greeter
	@# Existing settings may have been edited: keep them.
	set -e; for name in $(settings); do \
		test -e $(DESTDIR)$(sysconfdir)/greeter/$$name || \
			$(INSTALL_DATA) etc/$$name $(DESTDIR)$(sysconfdir)/greeter/; \
	done
	@# The units contain the full path of the program, which only this Makefile knows.
	set -e; for unit in $(services:%=system/%) $(system_units:%=system/%) $(services:%=user/%); do \
		case $$unit in system/*) to=$(systemdsystemunitdir);; *) to=$(systemduserunitdir);; esac; \
		to=$(DESTDIR)$$to/$${unit#*/}; \
		sed -e 's|@bindir@|$(bindir)|g' $(add_bindir) systemd/$$unit >$$to; \
		chmod 0644 $$to; \
	done
	$(INSTALL_DATA) $(sockets:%=systemd/system/%) $(DESTDIR)$(systemdsystemunitdir)/
	$(INSTALL_DATA) $(sockets:%=systemd/system/%) $(DESTDIR)$(systemduserunitdir)/
	$(INSTALL_DATA) systemd/system/$(preset) $(DESTDIR)$(systemdsystempresetdir)/
	$(INSTALL_DATA) systemd/system/$(preset) $(DESTDIR)$(systemduserpresetdir)/
	$(INSTALL_DATA) systemd/greeter.catalog $(DESTDIR)$(catalogdir)/
	$(INSTALL_DATA) systemd/greeter-root.conf $(DESTDIR)$(tmpfilesdir)/
	$(INSTALL_DATA) target/man/greeter.toml.5 $(DESTDIR)$(mandir)/man5/
	$(INSTALL_DATA) target/man/greeter.7 $(DESTDIR)$(mandir)/man7/
	$(INSTALL_DATA) target/man/greeter.8 $(DESTDIR)$(mandir)/man8/
	$(INSTALL_DATA) completions/greeter.bash $(DESTDIR)$(bashcompletiondir)/greeter
	$(INSTALL_DATA) completions/_greeter $(DESTDIR)$(zshcompletiondir)/_greeter
	$(INSTALL_DATA) completions/greeter.fish $(DESTDIR)$(fishcompletiondir)/greeter.fish
	$(INSTALL_DATA) $(documents) $(DESTDIR)$(docdir)/
	$(INSTALL_DATA) docs/tutorial.md $(DESTDIR)$(docdir)/docs/
	$(INSTALL_DATA) $(examples) $(DESTDIR)$(docdir)/examples/
	@# A package does this itself.
	@test -n "$(DESTDIR)" || echo "now run: systemd-tmpfiles --create greeter-root.conf && systemctl daemon-reload && journalctl --update-catalog"

uninstall: ## remove the files installed by `make install` with the same variables
	rm -f $(DESTDIR)$(bindir)/greeter \
		$(addprefix $(DESTDIR)$(systemdsystemunitdir)/,$(sockets) $(services) $(system_units)) \
		$(addprefix $(DESTDIR)$(systemduserunitdir)/,$(sockets) $(services)) \
		$(DESTDIR)$(systemdsystempresetdir)/$(preset) \
		$(DESTDIR)$(systemduserpresetdir)/$(preset) \
		$(DESTDIR)$(catalogdir)/greeter.catalog \
		$(DESTDIR)$(tmpfilesdir)/greeter-root.conf \
		$(DESTDIR)$(mandir)/man5/greeter.toml.5 \
		$(DESTDIR)$(mandir)/man7/greeter.7 \
		$(DESTDIR)$(mandir)/man8/greeter.8 \
		$(DESTDIR)$(bashcompletiondir)/greeter \
		$(DESTDIR)$(zshcompletiondir)/_greeter \
		$(DESTDIR)$(fishcompletiondir)/greeter.fish
	rm -rf $(DESTDIR)$(docdir)
	@# Keep edited settings.
	@for name in $(settings); do \
		if cmp -s etc/$$name $(DESTDIR)$(sysconfdir)/greeter/$$name; then \
			rm -f $(DESTDIR)$(sysconfdir)/greeter/$$name; \
		elif test -e $(DESTDIR)$(sysconfdir)/greeter/$$name; then \
			echo "keeping $(DESTDIR)$(sysconfdir)/greeter/$$name, because it was edited"; \
		fi; \
	done
	-rmdir $(settings:%=$(DESTDIR)$(sysconfdir)/greeter/%.d) $(DESTDIR)$(sysconfdir)/greeter 2>/dev/null

test: ## run the unit and integration tests
	$(CARGO) test --locked

clean: ## remove everything that was built
	@# The Debian images belong to root.
	[ ! -e target/roots ] || tools/as-root rm -rf --one-file-system target/roots
	rm -rf target dist

help: ## print this list
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

# Targets for packages and tests, which the release tarball omits.
-include tools/targets.mk
