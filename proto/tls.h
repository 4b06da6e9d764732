/* One TLS connection over a stream: what channel puts between the stream and its frames when there
 * are certificates. TLS 1.3 only, certificates on both sides, no resumption; OpenSSL sees memory, never the socket.
 *
 *     stream ──▶ in ──▶ SSL_read ──▶ where the receiver wants it
 *     senders ──▶ a record's worth gathered ──▶ SSL_write ──▶ out ──▶ stream
 *
 * Until the handshake is over and the peer is known, 8 KiB each way and OpenSSL's own state are all that is
 * allocated for him. Receives and sends are as a stream's: one receive at a time, sends in order; sends of
 * one turn of the loop share records and leave together.
 *
 * Errors: -ECONNRESET (the connection's end), -EPROTO (the peer breaks TLS, or one of the two refuses the other's
 * certificate: tls_why() then says so), -ETIMEDOUT (no handshake within its deadline). */
#ifndef AQ_TLS_H
#define AQ_TLS_H
#include "proto/identity.h"

enum {
	TLS_HANDSHAKE_BYTES = 8 << 10,
	TLS_IN_BYTES = 64 << 10,
	TLS_OUT_RECORDS = 4,
	TLS_RECORD_EXTRA = 64, /* at most, around what a record carries */
	TLS_OUT_BYTES = TLS_OUT_RECORDS * (IDENTITY_RECORD_BYTES + TLS_RECORD_EXTRA) + 4096,
};
#define TLS_REKEY_BYTES (UINT64_C(64) << 30) /* sent with one key; AES-GCM is good for 388 GiB */

struct tls {
	struct env *env;
	struct stream *stream;
	struct identity *identity;
	unsigned roles;             /* who may be at the other end: identity_role */
	const char *host;           /* … and whose certificate it must be; NULL: any of those; borrowed until the handshake is over */
	struct identity_name peer;  /* who is, once the handshake is over */
	uint64_t rekey_bytes;       /* tests lower it */
	/* private */
	SSL *ssl;
	bool established;
	int refusal;                /* -EKEYREJECTED: we refuse the peer's certificate; -EACCES: the peer ours */
	char why[128];
	struct timer timer;
	struct job handshake_job, timer_job, end_job;
	bool late;
	struct job *handshake_parent;
	int handshake_status;
	uint8_t *in, *out;
	size_t in_start, in_end, in_room, out_end, out_room, out_sending;
	struct iovec in_iov, out_iov;
	struct stream_io in_io, out_io;
	struct job receive_job, send_job;
	struct stream_io *receive;
	struct link sends, sending; /* stream_io.link: to be encrypted; encrypted and under way */
	bool sender_runs, closing;
	int send_error;
	uint64_t key_bytes;
};

/* Takes the stream over when it succeeds. `client`: who speaks first. 0 or -ENOMEM. */
int tls_create(struct env *env, struct identity *identity, struct stream *stream, bool client, unsigned roles, struct tls **ret);
/* Holds `parent`; puts it with 0 when each knows who the other is (a client: when the server is known; the server may refuse us yet),
 * or with an error. */
void tls_handshake(struct tls *t, uint64_t deadline_ns, struct job *parent);
void tls_recv(struct tls *t, struct stream_io *io, struct job *parent);
void tls_send(struct tls *t, struct stream_io *io, struct job *parent);
/* All that is under way, or begun later, ends with -ECONNRESET. */
void tls_shutdown(struct tls *t);
/* Closes the stream too; nothing is under way any more. Accepts NULL. */
void tls_close(struct tls *t);
/* One clause for people when a certificate was refused, by either side; NULL otherwise. */
const char *tls_why(const struct tls *t);
/* FIBER. A client's whole beginning on a stream, which is taken over, also on failure. `host`: as above. */
int tls_connect(struct env *env, struct stream *stream, unsigned roles, const char *host, uint64_t deadline_ns, struct tls **ret, struct report *report);

/* "tls:HOST:PORT" is "tcp:HOST:PORT" with certificates. */
static inline bool tls_address(const char *address) { return strncmp(address, "tls:", 4) == 0; }
/* The address of the stream below. `ret` has room for as much as `address` has. */
void tls_stream_address(const char *address, char *ret);

/* For identity.c. */
BIO_METHOD *tls_bio_method(void);
void tls_context_prepare(SSL_CTX *context);
#endif
