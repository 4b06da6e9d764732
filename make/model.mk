# The store's protocol, searched by spin: `make model` the cases that take seconds, `make model MODEL=all` all of them (five minutes, 2 GiB).
MODEL ?= brief
model:
	@sh tests/model/check.sh $(MODEL)

.PHONY: model
