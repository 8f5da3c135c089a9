// The one extension module of the project. Each topic lives in a file of its own and registers itself here.
#include <nanobind/nanobind.h>

namespace nb = nanobind;

void bind_attention(nb::module_ &m);
void bind_mapping(nb::module_ &m);
void bind_residency(nb::module_ &m);
void bind_pareto(nb::module_ &m);
void bind_sums(nb::module_ &m);
void bind_design(nb::module_ &m);
void bind_xmc(nb::module_ &m);
void bind_serving(nb::module_ &m);

NB_MODULE(_kernels, m) {
    m.doc() = "Compiled kernels of dse; use them through the modules of dse_kernels, which hold the references.";
    bind_attention(m);
    bind_mapping(m);
    bind_residency(m);
    bind_pareto(m);
    bind_sums(m);
    bind_design(m);
    bind_xmc(m);
    bind_serving(m);
}
