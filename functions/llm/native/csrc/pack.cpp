#include "pack.h"

#include <cstring>
#include <initializer_list>

namespace huginn {
namespace {

size_t bytes_of(Precision precision) {
  switch (precision) {
    case Precision::kFloat32: return 4;
    case Precision::kBfloat16: return 2;
    case Precision::kInt8: return 1;
  }
  return 0;
}

// The inputs of a line in int8 stand in the order 0, 2, 1, 3: where a CPU has no product of bytes, two shifts then make
// pairs of neighbours of them.
constexpr size_t kInt8Order[4] = {0, 2, 1, 3};

class Packer {
 public:
  Packer(const Sizes& sizes, const Source* sources, uint8_t* packed)
      : precision_(static_cast<Precision>(sizes.precision)), source_(sources), packed_(packed) {}

  const Source& next() { return *source_++; }

  void vector(size_t at, const Source& from, size_t rows, size_t width) {
    size_t padded = round_up(width, kPanel);
    for (size_t row = 0; row < rows; ++row) {
      std::memcpy(packed_ + at + row * padded * sizeof(float), static_cast<const float*>(from.data) + row * width,
                  width * sizeof(float));
    }
  }

  // `from` has the matrix of each source; an LSTM's gates are one array, of which each is a part.
  void matrix(const Matrix& m, const Source* from) {
    for (size_t g = 0; g < m.groups; ++g) {
      size_t panels = m.panels_in(g);
      for (size_t source = 0; source < m.sources; ++source) {
        for (size_t p = 0; p < panels; ++p) panel(m, from[source], g, panels * m.sources, source * panels + p, m.first_panel(g) + p);
      }
    }
  }

  void float_at(size_t at, size_t index, float value) {
    std::memcpy(packed_ + at + index * sizeof(float), &value, sizeof value);
  }

 private:
  void panel(const Matrix& m, const Source& from, size_t g, size_t panels, size_t place, size_t source_panel) {
    size_t size = bytes_of(precision_);
    const uint8_t* data = static_cast<const uint8_t*>(from.data);
    for (size_t lane = 0; lane < kPanel; ++lane) {
      size_t row = source_panel * kPanel + lane;
      if (row >= m.rows) break;
      const uint8_t* weights = data + row * m.inputs * size;
      uint8_t* out = packed_ + m.group_at(g) + place * kLine + lane * (kLine / kPanel);
      for (size_t k = 0; k < m.inputs; ++k) {
        size_t in_line = k % m.inputs_per_line;
        if (precision_ == Precision::kInt8) in_line = kInt8Order[in_line];
        std::memcpy(out + k / m.inputs_per_line * panels * kLine + in_line * size, weights + k * size, size);
      }
      if (precision_ != Precision::kInt8) continue;
      int32_t sum = 0;
      for (size_t k = 0; k < m.inputs; ++k) sum += static_cast<int8_t>(weights[k]);
      size_t index = m.row_at(g) + place * kPanel + lane;
      float_at(m.scales, index, from.scale[row]);
      std::memcpy(packed_ + m.sums + index * sizeof sum, &sum, sizeof sum);
    }
  }

  Precision precision_;
  const Source* source_;
  uint8_t* packed_;
};

void pack_mingru(const Sizes& s, Packer& packer) {
  size_t width = static_cast<size_t>(s.width), hidden = static_cast<size_t>(s.hidden);
  MinGruArrays sizes(s, [](size_t, const MinGruLayer&) {});
  packer.vector(sizes.embedding, packer.next(), static_cast<size_t>(s.vocab), width);
  MinGruArrays(s, [&](size_t, const MinGruLayer& at) {
    packer.vector(at.mixer_norm, packer.next(), 1, width);
    packer.vector(at.taps, packer.next(), sizes.taps, width);
    packer.vector(at.conv_bias, packer.next(), 1, width);
    Source gates[2] = {packer.next(), {}};
    packer.vector(at.gate_bias, packer.next(), 1, hidden);
    gates[1] = packer.next();
    packer.matrix(at.gates, gates);
    packer.matrix(at.out, &packer.next());
    packer.vector(at.mlp_norm, packer.next(), 1, width);
    packer.matrix(at.up, &packer.next());
    packer.matrix(at.down, &packer.next());
  });
  packer.vector(sizes.norm, packer.next(), 1, width);
  packer.matrix(sizes.head, &packer.next());
}

void pack_lstm(const Sizes& s, Packer& packer) {
  size_t hidden = static_cast<size_t>(s.hidden), size = bytes_of(static_cast<Precision>(s.precision));
  LstmArrays sizes(s, [](size_t, const LstmLayer&) {});
  packer.vector(sizes.embedding, packer.next(), static_cast<size_t>(s.vocab), sizes.emb);
  LstmArrays(s, [&](size_t, const LstmLayer& at) {
    for (const Matrix* m : {&at.input, &at.hidden}) {
      const Source& whole = packer.next();
      Source gates[4];
      for (size_t gate = 0; gate < 4; ++gate) {
        gates[gate].data = static_cast<const uint8_t*>(whole.data) + gate * hidden * m->inputs * size;
        gates[gate].scale = whole.scale == nullptr ? nullptr : whole.scale + gate * hidden;
      }
      packer.matrix(*m, gates);
    }
    const float* of_input = static_cast<const float*>(packer.next().data);
    const float* of_hidden = static_cast<const float*>(packer.next().data);
    for (size_t i = 0; i < 4 * hidden; ++i) {
      packer.float_at(at.bias, i / hidden * round_up(hidden, kPanel) + i % hidden, of_input[i] + of_hidden[i]);
    }
  });
  packer.matrix(sizes.head, &packer.next());
  packer.vector(sizes.head_bias, packer.next(), 1, static_cast<size_t>(s.vocab));
}

}  // namespace

void pack(const Sizes& sizes, const Source* sources, uint8_t* packed) {
  // What is padding must be 0: it is multiplied with.
  std::memset(packed, 0, packed_bytes(sizes));
  Packer packer(sizes, sources, packed);
  if (static_cast<Family>(sizes.family) == Family::kLstm) {
    pack_lstm(sizes, packer);
  } else {
    pack_mingru(sizes, packer);
  }
}

}  // namespace huginn
