#!/usr/bin/env bash
# Runs the builds, tests and measurements that need a GPU, and writes their output to a folder. By default it builds in
# place for compute capability 9.0, runs the CUDA tests, times SpMM against its peers and trains the models of
# `gnna compare`. Needs torch with CUDA, nvcc, torch-geometric and pytest.
#
#   benchmarks/on_gpu.sh OUTPUT_FOLDER [build test spmm dtypes segment sddmm epoch plan host page
#                                           schedule tune compare sanitizer]
#
# GNNA_DATA is the folder of graphs. GRAPHS, WIDTHS, DTYPE_GRAPHS, TUNE_GRAPHS, SCHEDULE_GRAPHS, TESTS, SANITIZED, ONLY,
# TAIL and PYTHON replace the defaults below.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=$1
shift
steps=${*:-build test spmm compare}
python=${PYTHON:-python3}
export PYTHONUNBUFFERED=1
graphs=${GRAPHS:-cora pubmed DD com-dblp facebook-links cnr-2000}

for step in $steps; do
  start=$SECONDS
  echo "== $step"
  case $step in
    build) GNNA_CUDA=1 GNNA_CUDA_ARCHS=90 $python setup.py build_ext --inplace >"$out/build.txt" 2>&1 || tail -40 "$out/build.txt" ;;
    test)  # the tests that run on the GPU, eight files at a time
      for file in ${TESTS:-tests/test_*.py}; do echo "$file"; done | grep -v emulated | xargs -P 8 -I{} sh -c \
        "$python -m pytest -p no:cacheprovider --tb=short -k cuda {} >\"$out\"/\$(basename {}).log 2>&1"
      cat "$out"/test_*.py.log >"$out/test.txt" && rm "$out"/test_*.py.log
      grep -h "^FAILED\|^ERROR\|Segmentation" "$out/test.txt" | head -${TAIL:-25}
      grep -o "[0-9]* passed" "$out/test.txt" | awk '{ n += $1 } END { print n + 0, "passed" }' ;;
    spmm | segment | sddmm)
      for pass in forward backward; do
        flag=$([ $pass = backward ] && echo --backward)
        $python -m gnna_plugin bench "$step" $flag --graph $graphs --widths ${WIDTHS:-16 32 64 128 256} --json "$out/$step-$pass.json" 2>&1 |
          tee "$out/$step-$pass.txt"
      done ;;
    dtypes)  # every dtype and reduction, to compare 16-bit dtypes with float32
      for dtype in float32 float64 float16 bfloat16; do
        for reduce in sum mean max min; do
          $python -m gnna_plugin bench spmm --graph ${DTYPE_GRAPHS:-DD com-dblp facebook-links} --widths 64 128 --dtype $dtype --reduce $reduce \
            --peers gnna torch.sparse.mm --json "$out/dtypes-$dtype-$reduce.json" 2>&1
        done
      done | tee "$out/dtypes.txt" ;;
    tune) $python -m gnna_plugin tune --graph ${TUNE_GRAPHS:-com-dblp facebook-links} --model gcn 2>&1 | tee "$out/tune.txt" ;;
    epoch) $python -m gnna_plugin bench epoch --split --models gcn gin sage gat --graph $graphs --json "$out/epoch.json" 2>&1 | tee "$out/epoch.txt" ;;
    plan) $python -m gnna_plugin bench plan --graph $graphs --json "$out/plan.json" 2>&1 | tee "$out/plan.txt" ;;
    host) $python -m gnna_plugin bench host --json "$out/host.json" 2>&1 | tee "$out/host.txt" ;;
    page) $python -m gnna_plugin bench page "$out"/{spmm,segment,sddmm,epoch,plan,host}*.json --output "$out/benchmarks.md" ;;
    schedule) $python benchmarks/schedule.py --graphs ${SCHEDULE_GRAPHS:-com-dblp DD cnr-2000 facebook-links standin:amazon0601} --json "$out/schedule.json" 2>&1 | tee "$out/schedule.txt" ;;
    compare)
      for model in gcn gin; do
        $python -m gnna_plugin compare --framework pyg --model $model --graph $graphs --json "$out/$model.json" 2>&1 | tee "$out/$model.txt"
      done ;;
    sanitizer)
      compute-sanitizer --tool memcheck --error-exitcode 7 $python -m pytest -p no:cacheprovider -q ${SANITIZED:-tests/test_ops_forward.py} -k "cuda and ${ONLY:-hub}" \
        >"$out/sanitizer.txt" 2>&1; echo "memcheck exit code $?"; tail -5 "$out/sanitizer.txt" ;;
    *) echo "unknown step $step; benchmarks/on_gpu.sh lists the steps" ;;
  esac
  echo "== $step: $((SECONDS - start)) s"
done
