# make install DESTDIR= PREFIX=/usr/local: programs, manual pages, completion, the systemd units. make uninstall takes away
# what install put there, nothing else.

BINDIR  ?= $(PREFIX)/bin
SBINDIR ?= $(PREFIX)/sbin
MANDIR  ?= $(PREFIX)/share/man
COMPDIR ?= $(PREFIX)/share/bash-completion/completions
UNITDIR ?= $(PREFIX)/lib/systemd/system

BIN_PROGRAMS  := $(filter $(B)/aquifer $(B)/aquifer-tapdisk,$(PROGRAMS))
SBIN_PROGRAMS := $(filter-out $(BIN_PROGRAMS),$(PROGRAMS))
UNITS := $(wildcard deploy/systemd/*.service)
# NAME.8 goes to man8. Quoted, for names with blanks.
man_to = '$(DESTDIR)$(MANDIR)/man$(subst .,,$(suffix $(1)))/$(notdir $(1))'
MAN_SECTIONS := $(sort $(subst .,,$(suffix $(MAN))))

install: all
	install -d '$(DESTDIR)$(BINDIR)' '$(DESTDIR)$(SBINDIR)' '$(DESTDIR)$(COMPDIR)' '$(DESTDIR)$(UNITDIR)' \
		$(foreach n,$(MAN_SECTIONS),'$(DESTDIR)$(MANDIR)/man$(n)')
	install -m 755 $(BIN_PROGRAMS) '$(DESTDIR)$(BINDIR)'
	install -m 755 $(SBIN_PROGRAMS) '$(DESTDIR)$(SBINDIR)'
	$(foreach m,$(MAN),install -m 644 $(m) $(call man_to,$(m)) && ):
	install -m 644 deploy/completion/aquifer.bash '$(DESTDIR)$(COMPDIR)/aquifer'
	$(foreach p,$(notdir $(filter-out $(B)/aquifer,$(PROGRAMS))),ln -sf aquifer '$(DESTDIR)$(COMPDIR)/$(p)' && ):
	$(foreach u,$(UNITS),sed 's|@BINDIR@|$(BINDIR)|; s|@SBINDIR@|$(SBINDIR)|' $(u) >'$(DESTDIR)$(UNITDIR)/$(notdir $(u))' && ):

uninstall:
	rm -f $(foreach p,$(BIN_PROGRAMS),'$(DESTDIR)$(BINDIR)/$(notdir $(p))') \
		$(foreach p,$(SBIN_PROGRAMS),'$(DESTDIR)$(SBINDIR)/$(notdir $(p))') \
		$(foreach m,$(MAN),$(call man_to,$(m))) \
		$(foreach p,$(notdir $(PROGRAMS)),'$(DESTDIR)$(COMPDIR)/$(p)') \
		$(foreach u,$(notdir $(UNITS)),'$(DESTDIR)$(UNITDIR)/$(u)')

.PHONY: install uninstall
