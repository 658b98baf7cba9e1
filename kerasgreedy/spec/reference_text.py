"""What the reference pages say before their tables, see `reference`."""

SPEC_INTRO = """# Model spec

What the network is. No training setting lives here; see [recipe.md](recipe.md) for those.
This page is generated from the schema (`make docs`); `kerasgreedy schema model` prints the JSON Schema for editors.

A block is one layer, a list of layers, or a mapping with `layers` and options:

```yaml
name: example
input_shape: [32, 32, 3]
classes: 10
block_defaults: {batch_norm: true, activation: relu}
blocks:
  - {conv: 64}                                         # one layer
  - [{conv: 64, downsample: invertible}, {dropout: 0.1}]   # a sequence
  - {residual: [{conv: 64}, {conv: 64, activation: linear}]}
  - {branches: [[{conv: 32, kernel_size: 1}], [{max_pool: 3, stride: 1, padding: same}, {conv: 32}]]}
  - {name: top, repeat: 2, layers: [{conv: 64}], head: {hidden_layers: 0}}
auxiliary_head: {hidden_layers: 2, width: 2x, batch_norm: true}
final_head: {layers: [{global_avg_pool: true}, {dropout: 0.5}]}
```

A head given by `hidden_layers`, `width`, ... is: mean over `input_pool` windows (left out where the map is smaller), hidden 3x3
convolutions with the activation of `block_defaults`, spatial mean to `pool_to`, batch norm where asked for, and a linear layer to
the classes (Belilovsky et al. 2019, eq. 2, k = `hidden_layers` + 1). On a block that ends in a vector the hidden layers are dense,
and nothing is pooled. `final_head` and a block's `head` take the keys that they leave out from `auxiliary_head`. A head given as
`layers` must end in a vector; the linear layer is added to it. With `class_maps` beside them they must end in a map instead: a 1x1
convolution to one map for each class, its activation and the mean over all places are added (Lin et al. 2014; Springenberg et al.
2015: `class_maps: relu`). With `class_maps: linear` that is what `global_avg_pool` and the linear layer give, in the other order.

A network of `summary` and of the reports counts blocks and the final head, not the auxiliary heads. Batch norm counts its
scale and shift, not its moving statistics; thresholds count where they are trained. Multiply-adds are those of convolutions and
dense layers, for one image.
"""

RECIPE_INTRO = """# Recipe

How a network is trained. What the network is stands in the model spec, see [spec.md](spec.md).
This page is generated from the schema (`make docs`); `kerasgreedy schema recipe` prints the JSON Schema for editors.

```yaml
name: example
data: {dataset: "folder:~/data/pets", image_size: 64, augment: {pad_crop: 4, horizontal_flip: true}}
strategy: greedy
training:
  epochs: 30
  batch_size: 128
  optimizer: {name: sgd, learning_rate: 0.1, momentum: 0.9, weight_decay: 5e-4}
  schedule: {name: step, factor: 0.2, every: 10}
  keep: best
```

Any value of either document is overridden on the command line with `--set training.epochs=3`; where both documents have
the key, write `spec.name=...` or `recipe.name=...`. List items go by number: `--set blocks.0.conv=32`.

## Strategies

| strategy | phases | what trains | losses | gradient between blocks |
| --- | --- | --- | --- | --- |
| `greedy` | one for each block | the block and its head; the blocks before are frozen | at that head | stopped |
| `decoupled` | 1 | everything | at every head | stopped |
| `end_to_end` | 1 | all blocks and the final head | at the final head | passes |
| `deep_supervision` | 1 | everything | at every head, summed | passes |
| `random_features` | 1 | the heads only; blocks keep their random weights | at every head | none |
| `convex` | one for each block, and one for each fit and taking of filters | the head; blocks take the filters of the head before | at that head | stopped |
| `dsd` | 3: dense, sparse, dense again | all blocks and the final head | at the final head | passes |
| `compress` | those of `prune.fine_tune` and `replace_head` | the network of another run, see `start_from` | at `prune.heads` | passes |

Frozen blocks run in inference mode: their batch norm statistics do not move.

All phases of a strategy train as `training` says, except for what `phases` changes for one of them:

```yaml
strategy: greedy
training: {epochs: 50, optimizer: {name: sgd, learning_rate: 0.1, weight_decay: 5e-4}}
phases: {block_1: {epochs: 20}, block_2: {optimizer: {name: sgd, learning_rate: 0.05}}}
```

## Removal of filters between phases

`prune` takes the least important filters out: greedy, of each block after its phase; other strategies, of the whole network after
theirs; each time followed by a phase of fine-tuning. `replace_head` trains another last head in the end. Both are actions of the
plan, between phases, and `plan` shows the sizes that they leave where the settings alone decide them. How filters are ranked, what
is removed together and how much is gained stands in [pruning.md](pruning.md). `threshold`, instead, takes out what a structured penalty
has made small, see [sparsity.md](sparsity.md).

```yaml
strategy: greedy
training: {epochs: 50, optimizer: {name: sgd, learning_rate: 0.1, weight_decay: 5e-4}}
prune: {keep: 64, importance: taylor_activation, fine_tune: {epochs: 20, schedule: {name: cosine}}}
replace_head: {head: {width: 64}}
```

## Dense, sparse, dense

`dsd` (Han et al. 2017; also in Huang, Kong and Lucey, "CNNs are Globally Optimal Given Multi-Layer Support", section 4.2) trains end
to end three times, each phase with a new optimiser and from the start of its learning rate schedule, on the weights that the phase
before ended with:

1. `dense` is ordinary training.
2. `sparse` holds the smallest weights of each kernel at zero and trains the rest. Kernels are those of convolutions and dense layers, the
   classifier's too; biases and batch norm stay whole. Of a kernel with n weights, round(sparsity * n) are zero, exactly, at the end
   of every step: momentum and weight decay do not move them. One weight at least is kept. A weight that was pruned stays pruned in
   this phase.
3. `dense_again` trains all weights; the pruned ones start from zero. Its learning rate is a tenth of training's, unless
   `dsd.dense.optimizer` says otherwise.

```yaml
strategy: dsd
training: {epochs: 30, optimizer: {name: sgd, learning_rate: 0.1, weight_decay: 5e-4}}
dsd:
  schedule: {name: polynomial_decay, initial_sparsity: 0.1, final_sparsity: 0.5, begin_step: 0, end_step: 2000}
  sparse: {epochs: 20, keep: best}
  dense: {epochs: 10}
```

`epochs` is that of each phase, so the plan above trains 60. Schedules have the names, keys and meanings of TFMOT's `PolynomialDecay` and
`ConstantSparsity` and count the training steps of the sparse phase from 0; where one is active, masks are chosen before the step. With
`keep: best`, and for early stopping, points of the sparse phase count from the first epoch on that ends with the final sparsity in
force; its start does not count. With `sparse: {solver: {name: alternation, ...}}` the support decides what is pruned, see
[alternation.md](alternation.md). Masks do not make the network smaller or faster, and the last phase ends dense.

## The cache

Greedy training runs the frozen blocks again for every batch of every epoch. Their output is the same each time the same view of an
image comes by, so it can be kept: `cache` does that, in memory or on disk, wherever views repeat. They do without `augment`, and with
`data.augment_views: n`, where epoch e of every phase shows view e mod n of each image. `plan` says for each phase whether its input
is cached, in how many bytes, and why; `plan --json` and `plan.json` have the same figures (`cache`, `cache_views`, `cache_bytes`,
`cache_dtype`, `cache_reason`).

The bytes are (n x training images + validation images) x values of a block's output x 4 (float32) or 2 (bfloat16). A phase's cache is
filled from that of the phase before where both fit into the limits together, else from images. The weights that come out are those of
`store: none`, bit for bit, unless `dtype` rounds more than the frozen blocks themselves do. (A TFDS set too large for memory is read
through a shuffle buffer without the cache and in a random order of all images with it.) With fewer views than epochs a network sees
less variety: what that costs was measured in [performance.md](performance.md).

## Precision

`mixed_bfloat16` and `mixed_float16` compute convolutions and activations in 16 bits: on processors that have units for them a step is
up to twice as fast and needs half the memory. Weights, batch norm statistics, the last layer of a head, losses and the optimiser's state
are float32. `mixed_float16` scales the loss and skips a step whose gradients overflow. Frozen blocks are not trained, so they may
be less precise than the rest: `prefix_precision`. Validation figures during training are in the phase's precision; the evaluation
at the end, `evaluate` and the saved model compute in float32. With another `prefix_precision` a block that starts as the identity sees
slightly other input than the head before it was trained on, so that the risk may rise by that little.

## Data sets

| `dataset` | images | needs |
| --- | --- | --- |
| `digits` | 1,797 of 8x8, grey, 10 classes; a fixed stratified fifth is the test split | nothing |
| `mnist`, `fashion_mnist` | 60,000 + 10,000 of 28x28, grey, 10 classes | four idx files in `data_dir` (`fashion_mnist`: or where Debian's dataset-fashion-mnist puts them), or a TFDS copy |
| `cifar10`, `cifar100` | 50,000 + 10,000 of 32x32, 10 or 100 classes | a TFDS copy |
| `svhn` | 73,257 + 26,032 of 32x32, 10 classes (TFDS: svhn_cropped) | a TFDS copy |
| `imagenet` | 1,281,167 + 50,000 of any size, 1,000 classes (TFDS: imagenet2012) | a TFDS copy |
| `caltech101` | 3,059 + 6,085 of any size, 102 classes | a TFDS copy |
| `mnist_basic`, `mnist_rotated`, `mnist_random_background`, `mnist_image_background`, `mnist_rotated_image_background` | 12,000 + 50,000 of 28x28, grey, 10 classes, made from MNIST | what `mnist` needs |
| `folder:PATH` | `PATH/train/<class>/*.jpg` and `PATH/test/<class>/*.jpg` (also png, bmp, gif) | the folder |
| `npz:PATH` | arrays `x_train`, `y_train`, `x_test`, `y_test`, perhaps `class_names` | the file |
| `tfds:NAME` | any TFDS image classification set, such as `tfds:cats_vs_dogs` | a TFDS copy with a test or validation split |

A TFDS copy is one that is prepared below `data_dir` (default: where TFDS keeps them), or is downloaded with `download: true`.
`kerasgreedy data list` says which are here, `kerasgreedy data prepare NAME` fetches one, `kerasgreedy data show` draws one. How
images are decoded, and what the variants of MNIST are made of: [data.md](data.md). Validation data is taken from the training split.
Test data is looked at once, after training.
"""

ANALYSES_INTRO = """# Analyses: every option

Generated from the schema. What they are for, and how to read their figures: [see_inside.md](see_inside.md).

`--out` names the folder for the results (default: `analyses/<name>` in the first run folder); `--overwrite` replaces results of other
settings or weights that are in it; `--devices GPU:1` computes there, and of `landscape` `--devices 2` or `--devices GPU:0,GPU:1` on several, a point on each;
`--quiet`, `-q` says nothing on the way; `--json` ends standard output with one JSON object, the figures and `files`. Lists are written with commas.
"""
