/* The version that --version prints and that peers are told. */
#ifndef AQ_VERSION_H
#define AQ_VERSION_H
#define AQ_VERSION "0.1"
#endif
