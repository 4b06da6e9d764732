#include "proto/tls.h"

#include <assert.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509_vfy.h>
#include <stdlib.h>
#include <string.h>

#include "core/blk.h"
#include "core/bytes.h"
#include "core/fiber.h"
#include "core/plant.h"

/* ---- what OpenSSL reads and writes: the two buffers ---- */

static int buffer_read(BIO *b, char *to, int n)
{
	struct tls *t = BIO_get_data(b);
	size_t take = MIN((size_t)MAX(n, 0), t->in_end - t->in_start);
	BIO_clear_retry_flags(b);
	if (take == 0) {
		BIO_set_retry_read(b);
		return -1;
	}
	memcpy(to, t->in + t->in_start, take);
	t->in_start += take;
	return (int)take;
}

static int buffer_write(BIO *b, const char *from, int n)
{
	struct tls *t = BIO_get_data(b);
	BIO_clear_retry_flags(b);
	if (n < 0 || (size_t)n > t->out_room - t->out_end) {
		BIO_set_retry_write(b);
		return -1;
	}
	memcpy(t->out + t->out_end, from, (size_t)n);
	t->out_end += (size_t)n;
	return n;
}

static long buffer_control(BIO *b, int command, long number, void *pointer)
{
	(void)b;
	(void)number;
	(void)pointer;
	return command == BIO_CTRL_FLUSH;
}

BIO_METHOD *tls_bio_method(void)
{
	BIO_METHOD *m = BIO_meth_new(BIO_TYPE_SOURCE_SINK | 100, "aquifer");
	if (m && (BIO_meth_set_read(m, buffer_read) != 1 || BIO_meth_set_write(m, buffer_write) != 1 ||
		  BIO_meth_set_ctrl(m, buffer_control) != 1)) {
		BIO_meth_free(m);
		m = NULL;
	}
	return m;
}

/* ---- who is the other? ---- */

/* Called for each certificate of the chain after OpenSSL's own checks; the last is the peer's own. The error
 * chosen becomes the alert that tells the peer. */
static int verify(int good, X509_STORE_CTX *store)
{
	SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
	struct tls *t = SSL_get_app_data(ssl);
	if (good && X509_STORE_CTX_get_error_depth(store) == 0) {
		int error = X509_V_OK;
		if (identity_of(X509_STORE_CTX_get_current_cert(store), &t->peer) < 0)
			error = X509_V_ERR_APPLICATION_VERIFICATION;
		else if (!(t->peer.role & t->roles) && !PLANTED(tls_any_role))
			error = X509_V_ERR_INVALID_PURPOSE;
		else if (t->host && strcmp(t->peer.host, t->host) != 0 && !PLANTED(tls_any_host))
			error = X509_V_ERR_HOSTNAME_MISMATCH;
		else if (identity_is_revoked(t->identity, &t->peer) && !PLANTED(tls_revoked_counts))
			error = X509_V_ERR_CERT_REVOKED;
		if (error != X509_V_OK) {
			X509_STORE_CTX_set_error(store, error);
			good = 0;
		}
	}
	if (!good) {
		t->refusal = -EKEYREJECTED;
		if (X509_STORE_CTX_get_error(store) == X509_V_ERR_HOSTNAME_MISMATCH)
			snprintf(t->why, sizeof t->why, "its certificate isn't accepted: it is host %.40s's, not %.40s's", t->peer.host, t->host);
		else
			snprintf(t->why, sizeof t->why, "its certificate isn't accepted: %s", X509_verify_cert_error_string(X509_STORE_CTX_get_error(store)));
	}
	return good;
}

static void watch_alerts(const SSL *ssl, int where, int value)
{
	struct tls *t = SSL_get_app_data(ssl);
	if ((where & SSL_CB_READ_ALERT) != SSL_CB_READ_ALERT || value >> 8 != SSL3_AL_FATAL || t->refusal)
		return;
	switch (value & 0xff) {
	case SSL_AD_BAD_CERTIFICATE:
	case SSL_AD_UNSUPPORTED_CERTIFICATE:
	case SSL_AD_CERTIFICATE_REVOKED:
	case SSL_AD_CERTIFICATE_EXPIRED:
	case SSL_AD_CERTIFICATE_UNKNOWN:
	case SSL_AD_UNKNOWN_CA:
	case SSL_AD_ACCESS_DENIED:
	case SSL_AD_HANDSHAKE_FAILURE:
	case SSL_AD_CERTIFICATE_REQUIRED:
		t->refusal = -EACCES;
		bool dated = (value & 0xff) == SSL_AD_CERTIFICATE_EXPIRED || (value & 0xff) == SSL_AD_BAD_CERTIFICATE; /* the latter: also of one that isn't valid yet */
		snprintf(t->why, sizeof t->why, "it doesn't accept this host's certificate: %s%s", SSL_alert_desc_string_long(value),
			 dated ? " (or its clock is wrong)" : "");
	}
}

void tls_context_prepare(SSL_CTX *context)
{
	SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, verify);
	SSL_CTX_set_info_callback(context, watch_alerts);
}

const char *tls_why(const struct tls *t) { return t->refusal ? t->why : NULL; }

/* ---- the beginning and the end ---- */

static void tls_free(struct tls *t)
{
	SSL_free(t->ssl);
	free(t->in);
	free(t->out);
	identity_put(t->identity);
	free(t);
}

static int tls_prepare(struct tls *t, bool client)
{
	t->ssl = SSL_new(t->identity->context);
	t->in = malloc(t->in_room = TLS_HANDSHAKE_BYTES);
	t->out = malloc(t->out_room = TLS_HANDSHAKE_BYTES);
	BIO *b = t->ssl && t->in && t->out ? BIO_new(t->identity->bio) : NULL;
	if (!b)
		return -ENOMEM;
	BIO_set_data(b, t);
	BIO_set_init(b, 1);
	SSL_set_bio(t->ssl, b, b);
	SSL_set_app_data(t->ssl, t);
	X509_VERIFY_PARAM_set_time(SSL_get0_param(t->ssl), (time_t)(env_wall_ns(t->env) / NS_PER_S));
	if (client)
		SSL_set_connect_state(t->ssl);
	else
		SSL_set_accept_state(t->ssl);
	return 0;
}

int tls_create(struct env *env, struct identity *identity, struct stream *stream, bool client, unsigned roles, struct tls **ret)
{
	struct tls *t = calloc(1, sizeof *t);
	if (!t)
		return -ENOMEM;
	t->env = env;
	t->identity = identity_get(identity);
	t->roles = roles;
	t->rekey_bytes = TLS_REKEY_BYTES;
	link_init(&t->sends);
	link_init(&t->sending);
	timer_init(&t->timer);
	ERR_clear_error();
	int r = tls_prepare(t, client);
	if (r < 0) {
		tls_free(t);
		return r;
	}
	t->stream = stream;
	*ret = t;
	return 0;
}

void tls_shutdown(struct tls *t) { stream_shutdown(t->stream); }

void tls_close(struct tls *t)
{
	if (!t)
		return;
	assert(!t->receive && link_empty(&t->sends) && link_empty(&t->sending) && !t->handshake_parent);
	if (t->sender_runs) { /* with words of OpenSSL's own */
		t->closing = true;
		stream_shutdown(t->stream);
		return;
	}
	stream_close(t->stream);
	tls_free(t);
}

void tls_stream_address(const char *address, char *ret)
{
	strcpy(ret, address);
	if (tls_address(address))
		memcpy(ret, "tcp:", 4);
}

/* ---- the handshake ----
 *
 *     ┌─▶ SSL_do_handshake ─▶ what it wants to say is sent ─▶ what comes is received ─┐     a timer shuts the stream down
 *     └──────────────────────────────────────────────────────────────────────────────┘ */

static void handshake_step(struct job *j);

/* The peer is known: from here on there is room for his data. */
static int handshake_grow(struct tls *t)
{
	uint8_t *in = malloc(TLS_IN_BYTES), *out = malloc(TLS_OUT_BYTES);
	if (!in || !out) {
		free(in);
		free(out);
		return -ENOMEM;
	}
	memcpy(in, t->in + t->in_start, t->in_end - t->in_start); /* he may have said more already */
	t->in_end -= t->in_start;
	t->in_start = 0;
	free(t->in);
	free(t->out);
	t->in = in;
	t->out = out;
	t->in_room = TLS_IN_BYTES;
	t->out_room = TLS_OUT_BYTES;
	t->established = true;
	return 0;
}

static void handshake_over(struct job *j)
{
	struct tls *t = container_of(j, struct tls, end_job);
	struct job *parent = t->handshake_parent;
	t->handshake_parent = NULL;
	job_put(parent, t->late && t->handshake_status < 0 ? -ETIMEDOUT : t->handshake_status);
}

static void handshake_late(struct job *j)
{
	struct tls *t = container_of(j, struct tls, timer_job);
	if (j->status == 0) {
		t->late = true;
		stream_shutdown(t->stream);
	}
	job_put(&t->end_job, 0);
}

static void handshake_end(struct tls *t, int status)
{
	t->handshake_status = status == 0 ? handshake_grow(t) : status;
	timer_cancel(t->env, &t->timer);
	job_put(&t->end_job, 0);
}

static void handshake_linger(struct tls *t);

/* What a peer says that was refused isn't looked at. */
static void handshake_ignored(struct job *j)
{
	struct tls *t = container_of(j, struct tls, handshake_job);
	if (j->status < 0)
		handshake_end(t, t->handshake_status);
	else
		handshake_linger(t);
}

static void handshake_wait(struct tls *t, job_step *then)
{
	t->in_start = t->in_end = 0; /* OpenSSL took all */
	t->in_iov = (struct iovec){ t->in, t->in_room };
	t->in_io = (struct stream_io){ .iov = &t->in_iov, .iov_count = 1, .minimum = 1 };
	job_init(&t->handshake_job, &t->env->loop);
	stream_recv(t->stream, &t->in_io, &t->handshake_job);
	job_then(&t->handshake_job, then);
}

/* A client whose certificate is refused thinks that all is well and speaks on; if the connection ended at once, the kernel would throw
 * away what tells him why. So he hangs up, or the deadline passes. */
static void handshake_linger(struct tls *t) { handshake_wait(t, handshake_ignored); }

static void handshake_received(struct job *j)
{
	struct tls *t = container_of(j, struct tls, handshake_job);
	if (j->status < 0) {
		handshake_end(t, -ECONNRESET);
		return;
	}
	t->in_end += t->in_io.done;
	handshake_step(j);
}

static void handshake_receive(struct tls *t) { handshake_wait(t, handshake_received); }

static void handshake_sent(struct job *j)
{
	struct tls *t = container_of(j, struct tls, handshake_job);
	t->out_end = 0;
	if (j->status == 0 && t->refusal && SSL_is_server(t->ssl)) {
		handshake_linger(t);
		return;
	}
	if (t->handshake_status != -EINPROGRESS || j->status < 0)
		handshake_end(t, t->handshake_status == -EINPROGRESS ? -ECONNRESET : t->handshake_status);
	else
		handshake_receive(t);
}

static void handshake_step(struct job *j)
{
	struct tls *t = container_of(j, struct tls, handshake_job);
	ERR_clear_error();
	int r = SSL_do_handshake(t->ssl);
	if (r == 1)
		t->handshake_status = 0;
	else if (SSL_get_error(t->ssl, r) != SSL_ERROR_WANT_READ)
		t->handshake_status = -EPROTO;
	ERR_clear_error();
	if (t->out_end == 0) {
		if (t->handshake_status == -EINPROGRESS)
			handshake_receive(t);
		else
			handshake_end(t, t->handshake_status);
		return;
	}
	t->out_iov = (struct iovec){ t->out, t->out_end };
	t->out_io = (struct stream_io){ .iov = &t->out_iov, .iov_count = 1 };
	job_init(&t->handshake_job, &t->env->loop);
	stream_send(t->stream, &t->out_io, &t->handshake_job);
	job_then(&t->handshake_job, handshake_sent);
}

void tls_handshake(struct tls *t, uint64_t deadline_ns, struct job *parent)
{
	struct loop *loop = &t->env->loop;
	job_hold(parent);
	t->handshake_parent = parent;
	t->handshake_status = -EINPROGRESS;
	job_init(&t->end_job, loop);
	job_hold(&t->end_job);
	job_hold(&t->end_job);
	job_then(&t->end_job, handshake_over);
	job_init(&t->timer_job, loop);
	timer_start(t->env, &t->timer, deadline_ns, &t->timer_job);
	job_then(&t->timer_job, handshake_late);
	job_init(&t->handshake_job, loop);
	job_then(&t->handshake_job, handshake_step);
}

int tls_connect(struct env *env, struct stream *stream, unsigned roles, const char *host, uint64_t deadline_ns, struct tls **ret, struct report *report)
{
	struct tls *t;
	int r = env->identity ? tls_create(env, env->identity, stream, /* client= */ true, roles, &t)
			      : report_set(report, -EACCES, "this host isn't enrolled in the cluster, or only for another role, or its certificate can't be read (aquifer cluster join)");
	if (r < 0) {
		stream_close(stream);
		return r;
	}
	struct job j;
	t->host = host;
	job_init(&j, &env->loop);
	tls_handshake(t, deadline_ns, &j);
	r = fiber_wait(&j);
	t->host = NULL;
	if (r < 0) {
		int refusal = t->refusal ? t->refusal : r;
		report_set(report, refusal, "no TLS with it: %s", t->refusal ? t->why : r == -EPROTO ? "what it says isn't TLS as we speak it" : strerror(-r));
		tls_close(t);
		return refusal;
	}
	*ret = t;
	return 0;
}

/* ---- receiving ---- */

static void sender_start(struct tls *t);
static void receive_try(struct tls *t);

static void receive_end(struct tls *t, int status)
{
	struct stream_io *io = t->receive;
	t->receive = NULL;
	io->status = status;
	job_put(io->parent, status);
}

/* As much as there is, record by record. 0: there is no more; -ECONNRESET, -EPROTO. */
static int receive_take(struct tls *t)
{
	struct stream_io *io = t->receive;
	struct iovec to;
	int count;
	while (iov_rest(io->iov, io->iov_count, io->done, &to, 1, &count) > 0) {
		size_t n = 0;
		ERR_clear_error();
		int r = SSL_read_ex(t->ssl, to.iov_base, to.iov_len, &n);
		if (r == 1) {
			io->done += n;
			continue;
		}
		int error = SSL_get_error(t->ssl, r);
		ERR_clear_error();
		return error == SSL_ERROR_WANT_READ ? 0 : error == SSL_ERROR_ZERO_RETURN ? -ECONNRESET : -EPROTO;
	}
	return 0;
}

static void receive_came(struct job *j)
{
	struct tls *t = container_of(j, struct tls, receive_job);
	if (j->status < 0) {
		receive_end(t, -ECONNRESET);
		return;
	}
	t->in_end += t->in_io.done;
	receive_try(t);
}

static void receive_try(struct tls *t)
{
	int r = receive_take(t);
	if (r == 0 && t->out_end > t->out_sending)
		sender_start(t); /* it has something to say to the peer itself: a change of keys */
	if (r < 0 || t->receive->done >= t->receive->minimum) {
		receive_end(t, r);
		return;
	}
	t->in_start = t->in_end = 0; /* OpenSSL keeps beginnings of records itself */
	t->in_iov = (struct iovec){ t->in, t->in_room };
	t->in_io = (struct stream_io){ .iov = &t->in_iov, .iov_count = 1, .minimum = 1 };
	job_init(&t->receive_job, &t->env->loop);
	stream_recv(t->stream, &t->in_io, &t->receive_job);
	job_then(&t->receive_job, receive_came);
}

void tls_recv(struct tls *t, struct stream_io *io, struct job *parent)
{
	assert(!t->receive && t->established);
	job_hold(parent);
	io->parent = parent;
	io->done = 0;
	io->status = 0;
	t->receive = io;
	receive_try(t);
}

/* ---- sending ---- */

static void sends_end(struct link *sends, int status)
{
	for (struct link *l; (l = link_pop(sends));) {
		struct stream_io *io = container_of(l, struct stream_io, link);
		io->status = status;
		job_put(io->parent, status);
	}
}

/* The bytes of the next record: where they are, if there are enough of them together, else gathered in the stage. */
static size_t record_gather(struct tls *t, const void **ret_bytes)
{
	uint8_t *stage = t->identity->stage;
	size_t n = 0;
	while (n < IDENTITY_RECORD_BYTES && !link_empty(&t->sends)) {
		struct stream_io *io = container_of(t->sends.next, struct stream_io, link);
		struct iovec from;
		int count;
		if (iov_rest(io->iov, io->iov_count, io->sent, &from, 1, &count) == 0) {
			link_drop(&io->link);
			link_push(&t->sending, &io->link);
			continue;
		}
		if (n == 0 && from.iov_len >= IDENTITY_RECORD_BYTES) {
			io->sent += IDENTITY_RECORD_BYTES;
			*ret_bytes = from.iov_base;
			return IDENTITY_RECORD_BYTES;
		}
		size_t take = MIN(from.iov_len, IDENTITY_RECORD_BYTES - n);
		memcpy(stage + n, from.iov_base, take);
		io->sent += take;
		n += take;
	}
	*ret_bytes = stage;
	return n;
}

static int records_write(struct tls *t)
{
	while (t->out_room - t->out_end >= IDENTITY_RECORD_BYTES + 2 * TLS_RECORD_EXTRA) {
		const void *bytes;
		size_t done = 0, n = record_gather(t, &bytes);
		if (n == 0)
			break;
		ERR_clear_error();
		if (t->key_bytes >= t->rekey_bytes && SSL_key_update(t->ssl, SSL_KEY_UPDATE_NOT_REQUESTED) == 1)
			t->key_bytes = 0;
		int r = SSL_write_ex(t->ssl, bytes, n, &done);
		ERR_clear_error();
		if (r != 1 || done != n)
			return -EPROTO;
		t->key_bytes += n;
	}
	return 0;
}

static void sender_step(struct job *j)
{
	struct tls *t = container_of(j, struct tls, send_job);
	int r = j->status;
	sends_end(&t->sending, r < 0 ? -ECONNRESET : 0);
	memmove(t->out, t->out + t->out_sending, t->out_end - t->out_sending);
	t->out_end -= t->out_sending;
	t->out_sending = 0;
	if (r == 0)
		r = records_write(t);
	if (r < 0) {
		t->send_error = -ECONNRESET;
		stream_shutdown(t->stream);
		sends_end(&t->sending, t->send_error);
		sends_end(&t->sends, t->send_error);
	}
	if (r < 0 || t->out_end == 0) {
		t->sender_runs = false;
		sends_end(&t->sending, 0); /* of no bytes */
		if (t->closing)
			tls_close(t);
		return;
	}
	t->out_sending = t->out_end;
	t->out_iov = (struct iovec){ t->out, t->out_end };
	t->out_io = (struct stream_io){ .iov = &t->out_iov, .iov_count = 1 };
	job_init(&t->send_job, &t->env->loop);
	stream_send(t->stream, &t->out_io, &t->send_job);
	job_then(&t->send_job, sender_step);
}

static void sender_start(struct tls *t)
{
	if (t->sender_runs)
		return;
	t->sender_runs = true;
	job_init(&t->send_job, &t->env->loop);
	job_then(&t->send_job, sender_step);
}

void tls_send(struct tls *t, struct stream_io *io, struct job *parent)
{
	assert(t->established);
	job_hold(parent);
	io->parent = parent;
	io->sent = 0;
	io->status = 0;
	if (t->send_error) {
		io->status = t->send_error;
		job_put(parent, t->send_error);
		return;
	}
	link_push(&t->sends, &io->link);
	sender_start(t);
}
