# bench-cluster: three servers, etcd, two hosts: bytes written, stalls, takeover, snapshots, overwriting, rebuild; see tests/bench/cluster
# for PARTS=, SIZE= …
bench-cluster: all $(B)/tools/snapload $(B)/tools/catalogcheck $(B)/tools/pairload
	$(Q)B=$(B) tests/bench/cluster

.PHONY: bench-cluster
