/* Planted bugs. `PLANTED(name)` is false and costs nothing in every product build; in the
 * build of `make mutants` it is true for the one plant chosen on the simulator's command
 * line, and the tests must notice. tests/sim/plants lists them all. */
#ifndef AQ_PLANT_H
#define AQ_PLANT_H
#include <stdbool.h>

#ifdef AQ_PLANTS
#include <string.h>
extern const char *plant_active; /* NULL: none */
#define PLANTED(name) (plant_active && strcmp(plant_active, #name) == 0)
#else
#define PLANTED(name) false
#endif
#endif
