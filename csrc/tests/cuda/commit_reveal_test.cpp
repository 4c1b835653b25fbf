// The CUDA kernels of one decoding step and of the eligible positions after it, run on the host: random canvases
// against the rules written out plainly, and against the same source run by one thread, as on the CPU.
#include <algorithm>

#include "../../common/eligible_positions.h"
#include "../../common/reveal.h"
#include "../../cuda/kernels.h"
#include "runs.h"

namespace {

using namespace tad;
using namespace tad::checks;

constexpr int64_t kMask = 99, kEos = 7, kOtherEos = 8;

/// A batch of canvases and what one forward says about them.
struct Problem {
  int64_t batch, gen_length, width, block_length;
  double block_add_threshold, decoded_token_threshold;
  ForcedProgress forced_progress;
  bool has_eos;
  std::vector<int64_t> canvas, reveal_step, forwards, blocks, positions, tokens, top_tokens;
  std::vector<uint8_t> done, accept, revealed;
  std::vector<float> score;

  RevealArguments arguments() {
    RevealArguments a;
    a.batch = batch;
    a.gen_length = gen_length;
    a.width = width;
    a.block_length = block_length;
    a.block_add_threshold = block_add_threshold;
    a.decoded_token_threshold = decoded_token_threshold;
    a.forced_progress = forced_progress;
    a.mask_token_id = kMask;
    a.eos_token_ids[0] = kEos;
    a.eos_token_ids[1] = kOtherEos;
    a.eos_count = has_eos ? 2 : 0;
    a.canvas = canvas.data();
    a.reveal_step = reveal_step.data();
    a.forwards = forwards.data();
    a.blocks = blocks.data();
    a.done = reinterpret_cast<bool*>(done.data());
    a.positions = positions.data();
    a.tokens = tokens.data();
    a.top_tokens = top_tokens.data();
    a.score = score.data();
    a.accept = reinterpret_cast<const bool*>(accept.data());
    a.revealed = reinterpret_cast<bool*>(revealed.data());
    return a;
  }
  bool operator==(const Problem& other) const {
    return canvas == other.canvas && reveal_step == other.reveal_step && forwards == other.forwards &&
           blocks == other.blocks && done == other.done && revealed == other.revealed;
  }
};

Problem random_problem(unsigned seed) {
  std::mt19937 random(seed);
  const auto below = [&](int64_t n) { return int64_t(random() % uint64_t(n)); };
  const int64_t block_length = 1 + below(40), all_blocks = 1 + below(4), gen_length = block_length * all_blocks;
  const int64_t batch = 1 + below(5), width = seed % 3 ? gen_length : 1 + below(gen_length);
  constexpr double kThresholds[] = {0, 0.3, 0.5, 1};
  Problem p{
      batch,
      gen_length,
      width,
      block_length,
      kThresholds[below(4)],
      kThresholds[below(4)],
      ForcedProgress(below(3)),
      seed % 2 == 0,
      {},
      {},
      {},
      {},
      {},
      {},
      {},
      {},
      {},
      {},
      {}};
  const int64_t revealed_percent = below(101), accepted_percent = seed % 4 ? below(60) : 0;
  for (int64_t row = 0; row < batch; ++row) {
    for (int64_t i = 0; i < gen_length; ++i) {
      const bool revealed = below(100) < revealed_percent;
      p.canvas.push_back(revealed ? below(7) : kMask);
      p.reveal_step.push_back(revealed ? 1 + below(3) : 0);
    }
    p.forwards.push_back(3 + below(3));
    p.blocks.push_back(1 + below(all_blocks));
    p.done.push_back(below(6) == 0);
    std::vector<int64_t> order;
    for (int64_t i = 0; i < gen_length; ++i) order.push_back(i);
    if (seed % 5 == 0) std::shuffle(order.begin(), order.end(), random);
    for (int64_t i = 0; i < width; ++i) {
      constexpr float kScores[] = {0.5f, 0.5f, 0.5f, 0.25f, 0.75f, NAN, -INFINITY, -INFINITY};
      p.positions.push_back(below(8) ? order[size_t(i)] : -1);
      p.tokens.push_back(below(12) ? below(7) : kEos + below(2));
      p.top_tokens.push_back(10 + below(7));
      p.score.push_back(seed % 7 ? kScores[below(8)] : kScores[5 + below(3)]);
      p.accept.push_back(below(100) < accepted_percent);
    }
  }
  p.revealed = std::vector<uint8_t>(size_t(batch * width), 1);
  return p;
}

/// The numbered rules of tad_ext.commit_reveal, for one canvas.
void expect_row(Problem& p, int64_t row) {
  int64_t* canvas = &p.canvas[size_t(row * p.gen_length)];
  int64_t* reveal_step = &p.reveal_step[size_t(row * p.gen_length)];
  const size_t base = size_t(row * p.width), width = size_t(p.width);
  std::fill_n(&p.revealed[base], width, uint8_t(0));
  if (p.done[size_t(row)]) return;
  const int64_t step = ++p.forwards[size_t(row)], created = p.blocks[size_t(row)];
  const auto share = [&](int64_t block) {
    return 1 - double(std::count(canvas + block * p.block_length, canvas + (block + 1) * p.block_length, kMask)) /
                   double(p.block_length);
  };

  const auto eligible = [&](int64_t block) {  // entries of a block, or of all created ones
    std::vector<size_t> entries;
    for (size_t i = base; i < base + width; ++i) {
      const int64_t position = p.positions[i];
      if (position < 0 || canvas[position] != kMask || position / p.block_length >= created) continue;
      if (block < 0 || position / p.block_length == block) entries.push_back(i);
    }
    return entries;
  };
  const auto reveals_one = [&](const std::vector<size_t>& entries) {
    return std::any_of(entries.begin(), entries.end(), [&](size_t i) { return p.revealed[i] != 0; });
  };
  const auto best = [&](const std::vector<size_t>& entries) {
    const auto score = [&](size_t i) { return std::isnan(p.score[i]) ? -INFINITY : p.score[i]; };
    return *std::max_element(entries.begin(), entries.end(), [&](size_t i, size_t j) { return score(i) < score(j); });
  };
  size_t with_top_token = p.revealed.size();
  for (size_t i : eligible(-1)) p.revealed[i] = p.accept[i];
  if (p.forced_progress == ForcedProgress::kRow && !eligible(-1).empty() && !reveals_one(eligible(-1)))
    p.revealed[best(eligible(-1))] = 1;
  for (int64_t block = 0; block < created; ++block) {
    const bool fully_active = block == 0 || share(block - 1) >= p.decoded_token_threshold - 1e-12;
    const std::vector<size_t> entries = eligible(block);
    if (entries.empty() || !fully_active) continue;
    if (!reveals_one(entries)) {
      p.revealed[best(entries)] = 1;
      if (p.forced_progress == ForcedProgress::kRow) with_top_token = best(entries);
    }
    if (p.forced_progress != ForcedProgress::kBlocks) break;
  }

  int64_t end = p.gen_length;
  for (size_t i = 0; i < width; ++i) {
    if (!p.revealed[base + i]) continue;
    const int64_t position = p.positions[base + i];
    const int64_t token = base + i == with_top_token ? p.top_tokens[base + i] : p.tokens[base + i];
    canvas[position] = token;
    reveal_step[position] = step;
    if (p.has_eos && (token == kEos || token == kOtherEos)) end = std::min(end, position);
  }
  for (int64_t i = end + 1; i < p.gen_length; ++i) {
    canvas[i] = canvas[end];
    reveal_step[i] = step;
  }
  if (share(created - 1) >= p.block_add_threshold - 1e-12 && created * p.block_length < p.gen_length)
    ++p.blocks[size_t(row)];
  const int64_t first = std::find(canvas, canvas + p.gen_length, kMask) - canvas;
  if (first < p.gen_length) p.blocks[size_t(row)] = std::max(p.blocks[size_t(row)], first / p.block_length + 1);
  p.done[size_t(row)] = first == p.gen_length;
}

/// The eligible positions of all canvases, then progress.
std::vector<int64_t> expected_positions(const Problem& p) {
  std::vector<int64_t> positions, progress;
  for (int64_t row = 0; row < p.batch; ++row) {
    const int64_t* canvas = &p.canvas[size_t(row * p.gen_length)];
    const int64_t created = p.blocks[size_t(row)] * p.block_length;
    const size_t begin = positions.size();
    for (int64_t i = 0; i < created && i < p.gen_length; ++i)
      if (canvas[i] == kMask) positions.push_back(i);
    const int64_t first = std::find(canvas, canvas + p.gen_length, kMask) - canvas;
    progress.push_back(first < p.gen_length ? first / p.block_length : 0);
    progress.push_back(int64_t(positions.size() - begin));
    progress.push_back(std::count(canvas, canvas + p.gen_length, kMask));
    positions.resize(begin + size_t(p.gen_length), -1);
  }
  positions.insert(positions.end(), progress.begin(), progress.end());
  return positions;
}

void test_eligible_positions() {
  for (unsigned seed = 0; seed < (kThreads ? 4 : 100); ++seed) {
    context = "eligible_positions " + std::to_string(seed);
    Problem problem = random_problem(seed);
    EligiblePositionsArguments a;
    a.batch = problem.batch;
    a.gen_length = problem.gen_length;
    a.block_length = problem.block_length;
    a.mask_token_id = kMask;
    a.canvas = problem.canvas.data();
    a.blocks = problem.blocks.data();
    const size_t positions = problem.canvas.size(), numbers = positions + size_t(3 * problem.batch);
    const auto positions_by = [&](const auto& run) {
      std::vector<int64_t> result = poisoned<int64_t>(int64_t(numbers));
      a.positions = result.data();
      a.progress = result.data() + positions;
      run();
      CHECK(result == expected_positions(problem));
      return result;
    };
    positions_by([&] {
      for (int64_t row = 0; row < a.batch; ++row)
        tad::TAD_ISA::eligible_positions_row(tad::TAD_ISA::OneThread(), a, row);
    });
    under_every_schedule([&](bool) {
      std::vector<unsigned char> bytes;
      append(bytes, positions_by([&] { CHECK(cuda::eligible_positions(a, nullptr) == 0); }));
      return bytes;
    });
  }
}

void test_random_canvases() {
  for (unsigned seed = 0; seed < (kThreads ? 40 : 400); ++seed) {
    context = "canvases " + std::to_string(seed);
    const Problem problem = random_problem(seed);
    Problem expected = problem, one_thread = problem;
    for (int64_t row = 0; row < problem.batch; ++row) {
      expect_row(expected, row);
      tad::TAD_ISA::reveal_row(tad::TAD_ISA::OneThread(), one_thread.arguments(), row);
    }
    CHECK(one_thread == expected);
    under_every_schedule([&](bool first) {
      Problem actual = problem;
      CHECK(cuda::commit_reveal(actual.arguments(), nullptr) == 0);
      if (first) CHECK(actual == expected);
      std::vector<unsigned char> bytes = actual.revealed;
      append(bytes, actual.canvas);
      return bytes;
    });
  }
}

/// A number of created blocks that cannot be is taken for the nearest one that can.
void test_impossible_numbers_of_blocks() {
  for (int64_t blocks : {-5, 0, 3, 1000}) {
    context = std::to_string(blocks) + " blocks";
    Problem p{
        1,
        4,
        4,
        2,
        1,
        1,
        ForcedProgress::kRow,
        false,
        {kMask, kMask, kMask, kMask},
        {0, 0, 0, 0},
        {0},
        {blocks},
        {0, 1, 2, 3},
        {1, 2, 3, 4},
        {1, 2, 3, 4},
        {0},
        {1, 1, 1, 1},
        {0, 0, 0, 0},
        {0, 0, 0, 0}};
    CHECK(cuda::commit_reveal(p.arguments(), nullptr) == 0);
    CHECK(p.canvas == (blocks < 1 ? std::vector<int64_t>{1, 2, kMask, kMask} : std::vector<int64_t>{1, 2, 3, 4}));
    CHECK(p.done[0] == (blocks > 1));
  }
}

}  // namespace

int main() {
  test_random_canvases();
  test_eligible_positions();
  test_impossible_numbers_of_blocks();
  return report();
}
