// The sizes of a model, and where each of its arrays stands in the packed weights.
//
// A matrix is cut into panels of 16 output rows and the panels into groups of at most four. In a group the order is
// [inputs][panel][16 rows]: a line of 64 bytes holds, for 16 rows, one float32 input, two bfloat16 or four int8 inputs. So a
// product reads its weights front to back, and the lanes of a register are 16 outputs whose sums never meet.
// A matrix may have several sources (the four gates of an LSTM): each group has the same panels of all of them.
#pragma once

#include <cstddef>
#include <cstdint>

namespace huginn {

constexpr size_t kPanel = 16;          // output rows of a panel
constexpr size_t kGroup = 4;           // panels of a group, at most
constexpr size_t kTile = kPanel * kGroup;
constexpr size_t kLine = 64;           // bytes
constexpr size_t kMaxTexts = 64;       // texts that go through the network together
constexpr size_t kMaxRows = 128;       // rows (texts x time) that go through it together, where one text has several

enum class Family : int64_t { kMinGru = 0, kLstm = 1 };
enum class Precision : int64_t { kFloat32 = 0, kBfloat16 = 1, kInt8 = 2 };

// In the order in which Python sends them. An LSTM has its embedding's width, and 1 for the last two.
struct Sizes {
  int64_t family, precision, vocab, width, hidden, layers, conv, mlp;
};

// What follows is each object's own: it is compiled for several instruction sets, and an inline function that those objects
// shared might be the one with the instructions that this CPU lacks.
namespace {

inline size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

struct Matrix {
  size_t inputs, rows, sources;  // `rows` of each source
  size_t panels, groups;         // panels of each source
  size_t inputs_per_line, lines; // lines of one panel
  size_t at, scales, sums, end;  // offsets in bytes: the lines, and in int8 the scale and the sum of each row

  // First panel of a group, of each source; a group's panels are those from here to the next group's first.
  size_t first_panel(size_t group) const { return group * panels / groups; }
  size_t panels_in(size_t group) const { return first_panel(group + 1) - first_panel(group); }
  size_t group_at(size_t group) const { return at + first_panel(group) * sources * lines * kLine; }
  // Index of a source's first row in the scales and sums, which are in the order of the lines.
  size_t row_at(size_t group) const { return first_panel(group) * sources * kPanel; }
};

struct MinGruLayer {
  size_t mixer_norm, taps, conv_bias, gate_bias, mlp_norm;
  Matrix gates, out, up, down;  // gates: the update gate and the candidate
};

struct LstmLayer {
  size_t bias;  // that of the input and that of the hidden vector, added; [4][H padded]
  Matrix input, hidden;
};

// Lays out arrays one after the other, each at a multiple of a line.
class Layout {
 public:
  explicit Layout(const Sizes& sizes) : sizes_(sizes) {}

  size_t vector(size_t count) {
    size_t at = end_;
    end_ = round_up(end_ + count * sizeof(float), kLine);
    return at;
  }

  Matrix matrix(size_t rows, size_t inputs, size_t sources = 1) {
    Matrix m{};
    m.inputs = inputs;
    m.rows = rows;
    m.sources = sources;
    m.panels = round_up(rows, kPanel) / kPanel;
    size_t most = kGroup / sources;
    m.groups = (m.panels + most - 1) / most;
    // An even number, so that two threads have the same to do.
    if (m.groups % 2 == 1 && m.panels > m.groups) ++m.groups;
    switch (static_cast<Precision>(sizes_.precision)) {
      case Precision::kFloat32: m.inputs_per_line = 1; break;
      case Precision::kBfloat16: m.inputs_per_line = 2; break;
      case Precision::kInt8: m.inputs_per_line = 4; break;
    }
    m.lines = round_up(inputs, m.inputs_per_line) / m.inputs_per_line;
    m.at = end_;
    m.scales = m.at + m.panels * sources * m.lines * kLine;
    m.sums = m.scales;
    end_ = m.scales;
    if (static_cast<Precision>(sizes_.precision) == Precision::kInt8) {
      m.sums = m.scales + m.panels * sources * kPanel * sizeof(float);
      end_ = m.sums + m.panels * sources * kPanel * sizeof(int32_t);
    }
    m.end = end_;
    return m;
  }

  size_t end() const { return end_; }

 private:
  Sizes sizes_;
  size_t end_ = 0;
};

// Where everything stands; the constructor calls `each` with the layers, in order.
struct MinGruArrays {
  size_t width, hidden, taps, mlp;
  size_t embedding;
  size_t norm;
  Matrix head;
  size_t end;

  template <class Each>
  MinGruArrays(const Sizes& s, Each each) {
    Layout layout(s);
    width = static_cast<size_t>(s.width);
    hidden = static_cast<size_t>(s.hidden);
    taps = static_cast<size_t>(s.conv);
    mlp = static_cast<size_t>(s.mlp) * width;
    size_t padded = round_up(width, kPanel);
    embedding = layout.vector(static_cast<size_t>(s.vocab) * padded);
    for (int64_t l = 0; l < s.layers; ++l) {
      MinGruLayer layer{};
      layer.mixer_norm = layout.vector(padded);
      layer.taps = layout.vector(taps * padded);
      layer.conv_bias = layout.vector(padded);
      layer.gate_bias = layout.vector(round_up(hidden, kPanel));
      layer.gates = layout.matrix(hidden, width, 2);
      layer.out = layout.matrix(width, hidden);
      layer.mlp_norm = layout.vector(padded);
      layer.up = layout.matrix(mlp, width);
      layer.down = layout.matrix(width, mlp);
      each(static_cast<size_t>(l), layer);
    }
    norm = layout.vector(padded);
    head = layout.matrix(static_cast<size_t>(s.vocab), width);
    end = layout.end();
  }
};

struct LstmArrays {
  size_t emb, hidden;
  size_t embedding;
  size_t head_bias;
  Matrix head;
  size_t end;

  template <class Each>
  LstmArrays(const Sizes& s, Each each) {
    Layout layout(s);
    emb = static_cast<size_t>(s.width);
    hidden = static_cast<size_t>(s.hidden);
    embedding = layout.vector(static_cast<size_t>(s.vocab) * round_up(emb, kPanel));
    for (int64_t l = 0; l < s.layers; ++l) {
      LstmLayer layer{};
      layer.bias = layout.vector(4 * round_up(hidden, kPanel));
      layer.input = layout.matrix(hidden, l == 0 ? emb : hidden, 4);
      layer.hidden = layout.matrix(hidden, hidden, 4);
      each(static_cast<size_t>(l), layer);
    }
    head = layout.matrix(static_cast<size_t>(s.vocab), hidden);
    head_bias = layout.vector(round_up(static_cast<size_t>(s.vocab), kPanel));
    end = layout.end();
  }
};

// Bytes of the packed weights; 0 where the sizes are of no model that this library can run.
inline size_t packed_bytes(const Sizes& s) {
  constexpr int64_t kLimit = 1 << 20, kInt8Inputs = 1 << 16;
  if (s.precision < 0 || s.precision > 2) return 0;
  if (s.vocab < 1 || s.width < 1 || s.hidden < 1 || s.layers < 1) return 0;
  if (s.vocab > kLimit || s.width > kLimit || s.hidden > kLimit || s.layers > 1024) return 0;
  // The product of more than 65,536 int8 inputs does not fit into 32 bits with activations that are worth having.
  bool int8 = static_cast<Precision>(s.precision) == Precision::kInt8;
  if (int8 && (s.width > kInt8Inputs || s.hidden > kInt8Inputs)) return 0;
  switch (static_cast<Family>(s.family)) {
    case Family::kMinGru:
      if (s.conv < 1 || s.conv > 1024 || s.mlp < 1 || s.mlp > 64) return 0;
      if (int8 && s.mlp * s.width > kInt8Inputs) return 0;
      return MinGruArrays(s, [](size_t, const MinGruLayer&) {}).end;
    case Family::kLstm:
      return LstmArrays(s, [](size_t, const LstmLayer&) {}).end;
  }
  return 0;
}

}  // namespace
}  // namespace huginn
