/* Scenario `volume`, embedded: what scrub and status say of the volume's directory, also when a block in it is damaged. */
#ifndef AQ_SIM_EMBEDDED_SCRUB_H
#define AQ_SIM_EMBEDDED_SCRUB_H
#include "tests/sim/volume_world.h"

/* FIBER of w->o, which nobody has "v" open beside; `s` is a snapshot that can be compared. Scrub finds nothing; then a block of the snapshot is damaged, which it
 * finds, and who reads it is told so; then all is as it was. */
void embedded_scrub(struct volume_world *w, const struct snapshot *s);
/* FIBER. */
void embedded_status(struct volume_world *w);
#endif
