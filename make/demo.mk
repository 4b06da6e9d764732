# make demo: installs what is missing, builds, and runs the main job and a small cluster once through, explaining itself (as root). in two acts. deploy/demo has it all.

demo:
	@B=$(B) bash deploy/demo/run

.PHONY: demo
