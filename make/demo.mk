# make demo: installs what is missing, builds, and runs the main job once through, explaining itself (as root). deploy/demo has it all.

demo:
	@B=$(B) bash deploy/demo

.PHONY: demo
