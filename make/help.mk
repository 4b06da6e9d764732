# make help: what each of make's targets is for: the beginnings of the Makefile and of make/*.mk.

help:
	@for f in Makefile make/*.mk; do echo; sed -n '/^#/!q; s/^# \{0,1\}//p' $$f; done

.PHONY: help
