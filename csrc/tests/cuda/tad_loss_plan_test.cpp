// What cuda::tad_loss_plan says of the loss's launch is what is launched, also where a device has less room.
#include "paths.h"
#include "tad_loss_runs.h"

namespace {

using namespace tad;
using namespace tad::checks;

constexpr int64_t kColumns = 640;

Problem problem_of_pairs() {
  Matrix student(DType::kBFloat16, 3, kColumns), teacher(DType::kBFloat16, 3, kColumns);
  return {student.randomize(1), teacher.randomize(2), {639, 0, 0}, {2, 9, 0}, {}, {}, {}};
}

cuda::LaunchPlan plan_of(const TadLossArguments& a) {
  cuda::LaunchPlan plan;
  CHECK(cuda::tad_loss_plan(a, &plan) == 0);
  return plan;
}

void check_launched(const cuda::LaunchPlan& plan) {
  CHECK(cuda_on_host::last_launched.cluster_blocks == unsigned(plan.cluster_blocks));
  CHECK(cuda_on_host::last_launched.shared_bytes == plan.kept_bytes);
}

void test_it_is_what_is_launched() {
  const Problem problem = problem_of_pairs();
  for (const Path& path : kPaths) {
    if (is_left_out(path)) continue;
    const OnPath on_path(path, kColumns, 4);
    check_problem(problem, {.every_schedule = false});
    check_launched(plan_of(problem.arguments()));
    on_path.check_launch(3, {.whole = true, .asks_ahead = true});
  }
}

/// LLaDA's and Dream's vocabularies on an H100, where pairs are limited by shared memory: no row is read.
void test_real_vocabularies() {
  const auto plan = [](DType dtype, int64_t vocabulary, bool has_teacher) {
    TadLossArguments a;
    a.vocabulary = vocabulary;
    a.student.dtype = a.teacher.dtype = dtype;
    if (has_teacher) a.teacher.data = &a;
    return plan_of(a);
  };
  const auto is = [](const cuda::LaunchPlan& plan, int cluster_blocks, size_t kept_bytes) {
    return plan.cluster_blocks == cluster_blocks && plan.kept_bytes == kept_bytes;
  };
  CHECK(is(plan(DType::kBFloat16, 126464, false), 4, 63232));
  CHECK(is(plan(DType::kBFloat16, 126464, true), 8, 63232));
  CHECK(plan(DType::kBFloat16, 126464, true).blocks_per_multiprocessor == 3);
  CHECK(is(plan(DType::kBFloat16, 152064, true), 16, 38016));
  CHECK(is(plan(DType::kFloat32, 126464, true), 16, 63232));
  CHECK(is(plan(DType::kFloat32, 152064, true), 16, 76032));
  CHECK(plan(DType::kFloat32, 152064, true).blocks_per_multiprocessor >= 2);
  CHECK(is(plan(DType::kFloat64, 152064, true), 16, 152064));
}

/// A share of a device has fewer multiprocessors than a cluster has blocks, each with room for one of them.
void test_clusters_find_room() {
  const Problem problem = problem_of_pairs();
  for (const auto& [multiprocessors, cluster_blocks] : {std::pair(1, 1), {3, 2}, {7, 4}, {15, 8}, {16, 16}}) {
    if (kThreads && cluster_blocks != 2) continue;
    context = std::to_string(multiprocessors) + " multiprocessors";
    const OnPath on_path({"kept by 16 blocks elsewhere", 16, true, 0}, kColumns, 4);
    cuda_on_host::Device& device = cuda_on_host::device;
    device.multiprocessors = multiprocessors;
    device.shared_bytes_per_multiprocessor = device.shared_bytes_per_block + (1 << 10);
    check_problem(problem, {.every_schedule = false});
    const cuda::LaunchPlan plan = plan_of(problem.arguments());
    CHECK(plan.cluster_blocks == cluster_blocks && plan.kept_bytes == size_t(kColumns / cluster_blocks * 4));
    check_launched(plan);
  }
}

}  // namespace

int main() {
  test_it_is_what_is_launched();
  test_real_vocabularies();
  test_clusters_find_room();
  return report();
}
