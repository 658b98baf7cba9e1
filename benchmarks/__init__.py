"""What greedy training costs here, beside the same training written in PyTorch.

Every script runs from the top of the checkout as `python -m benchmarks.NAME`; docs/performance.md says what its figures mean.
PyTorch comes with `pip install -e '.[bench]'`.

contenders   who is measured, and in which environment its process starts
workers      one process for each contender, told over pipes what to do
ours         this package's side of it; torch_worker, torch_simcnn, torch_train, torch_images, torch_weights: PyTorch's
costs        multiply-adds and stored activations, counted and not measured
figures      medians, spreads, tables, pictures
convex       its two sides are convex_ours and convex_torch, what they step on convex_problem
landscape    likewise landscape_ours, landscape_torch and landscape_problem
throughput, memory, depth, end_to_accuracy, parity, whole_runs, ...    the other scripts
"""
