# Aquifer: one makefile, everything out of tree in build/.
#
#   make            build the programs, the manual pages and nothing else (make all)
#   make demo       install what is needed, build, and run the main job (as root)
#   make check      install what is needed, build, and run all tests (as root)
#   make man        the manual pages only; make unit: the unit tests, build/unit; make tools: the programs that other tests use
#   make clean      take build/ away
#   make help       every other target
#
# V=1 shows the commands. B=DIR builds elsewhere. WERROR=1 makes warnings errors.

B       ?= build
PREFIX  ?= /usr/local
DESTDIR ?=
CC      ?= gcc
OPT     ?= -O2
PKGS    := libprotobuf-c jansson sqlite3 libisal libcrypto libssl fuse3

CFLAGS  ?= -g $(OPT)
WARN    := -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion -Wstrict-prototypes -Wimplicit-fallthrough -Wvla -Wno-format-truncation \
           $(if $(WERROR),-Werror)
ALL_CFLAGS = -std=gnu17 -D_GNU_SOURCE -DFUSE_USE_VERSION=312 -I. -I$(B)/gen $(WARN) $(CFLAGS) $(SAN) $(PLANTS) \
             $(shell pkg-config --cflags $(PKGS) libcurl 2>/dev/null) -pthread
ALL_LIBS   = $(SAN) $(shell pkg-config --libs $(PKGS) 2>/dev/null) -laio -pthread -lm

# What builds needs to write there: said at once, in one line, not by a compiler later.
ifneq ($(filter-out help clean uninstall demo,$(or $(MAKECMDGOALS),all)),)
DENIED := $(shell for d in '$(B)' '$(B)/obj' '$(B)/gen' '$(B)/check'; do \
	until [ -e "$$d" ]; do d=$$(dirname "$$d"); done; [ -d "$$d" ] && [ -w "$$d" ] || { echo "$$d"; break; }; done)
ifneq ($(DENIED),)
$(error $(DENIED) can't be written by user $(shell id -un) (use the account that built there, root for all tests, or build elsewhere: make B=DIR))
endif
endif

Q := $(if $(V),,@)
say = $(if $(V),,@echo "  $(1)  $(patsubst $(B)/%,%,$@)")

# ---- what there is: folders are the architecture ----
LIB_DIRS := core formats proto \
            parallax $(addprefix parallax/,catalog access segment map copies volume store) \
            server agent $(addprefix agent/,graph components exports cli daemon)
MAINS    := agent/aquifer.c agent/aquifer-agent.c agent/aquifer-tapdisk.c server/aquifer-server.c
LIB_SRC  := $(filter-out $(MAINS),$(sort $(foreach d,$(LIB_DIRS),$(wildcard $(d)/*.c))))
LIB_OBJ  := $(LIB_SRC:%.c=$(B)/obj/%.o)
PROTO    := $(wildcard proto/*.proto)
GEN_C    := $(PROTO:%.proto=$(B)/gen/%.pb-c.c)
GEN_OBJ  := $(GEN_C:.c=.o)
PROGRAMS := $(foreach m,$(wildcard $(MAINS)),$(B)/$(basename $(notdir $(m))))
UNIT_SRC := $(sort $(wildcard tests/unit/*.c))
SIM_SRC  := $(sort $(wildcard tests/sim/*.c))
FUZZ_SRC := $(sort $(wildcard tests/fuzz/*.c))
TOOL_SRC := $(sort $(wildcard tests/tools/*.c))
MAN_SRC  := $(sort $(wildcard docs/man/*.md))
MAN      := $(MAN_SRC:docs/man/%.md=$(B)/man/%)

all: $(PROGRAMS) man

# ---- rules ----
$(B)/obj/%.o: %.c | $(GEN_C)
	@mkdir -p $(@D)
	$(call say,CC )
	$(Q)$(CC) $(ALL_CFLAGS) -MMD -MP -c $< -o $@

$(B)/gen/%.pb-c.c: %.proto
	@mkdir -p $(@D)
	$(call say,PB )
	$(Q)protoc-c --c_out=$(B)/gen $<

$(B)/gen/%.o: $(B)/gen/%.c
	$(call say,CC )
	$(Q)$(CC) $(ALL_CFLAGS) -Wno-conversion -Wno-shadow -c $< -o $@

$(B)/libaquifer.a: $(LIB_OBJ) $(GEN_OBJ)
	$(call say,AR )
	$(Q)rm -f $@ && ar rcs $@ $^

$(filter %,$(PROGRAMS)): $(B)/%: $(B)/libaquifer.a
$(B)/aquifer: $(B)/obj/agent/aquifer.o
$(B)/aquifer-agent: $(B)/obj/agent/aquifer-agent.o
$(B)/aquifer-tapdisk: $(B)/obj/agent/aquifer-tapdisk.o
$(B)/aquifer-server: $(B)/obj/server/aquifer-server.o
$(PROGRAMS):
	$(call say,LD )
	$(Q)$(CC) $(filter %.o,$^) $(filter %.a,$^) $(LDFLAGS) $(ALL_LIBS) -o $@

$(B)/unit: $(UNIT_SRC:%.c=$(B)/obj/%.o) $(B)/libaquifer.a
	$(call say,LD )
	$(Q)$(CC) $^ $(LDFLAGS) -lcriterion $(ALL_LIBS) -o $@

$(B)/sim: $(SIM_SRC:%.c=$(B)/obj/%.o) $(B)/libaquifer.a
	$(call say,LD )
	$(Q)$(CC) $^ $(LDFLAGS) $(ALL_LIBS) -o $@

$(B)/tools/%: $(B)/obj/tests/tools/%.o $(B)/libaquifer.a
	@mkdir -p $(@D)
	$(call say,LD )
	$(Q)$(CC) $^ $(LDFLAGS) $(ALL_LIBS) -o $@

$(B)/man/%: docs/man/%.md
	@mkdir -p $(@D)
	$(call say,MAN)
	$(Q)pandoc -s -f markdown-smart-citations -t man $< -o $@

man: $(MAN)
unit: $(B)/unit
tools: $(TOOL_SRC:tests/tools/%.c=$(B)/tools/%)

include $(wildcard make/*.mk)

clean:
	rm -rf build

# what protoc made is kept, or each build would make it again
.SECONDARY: $(GEN_C)

-include $(shell find $(B)/obj -name '*.d' 2>/dev/null)

.PHONY: all man unit tools clean
.DEFAULT_GOAL := all
