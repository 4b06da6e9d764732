# make demo: installs what is missing, builds, and runs the main job in two acts: on one host, and on a small cluster, explaining itself (as root). deploy/demo has it all.

demo:
	@B=$(B) bash deploy/demo/run

.PHONY: demo
