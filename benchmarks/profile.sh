#!/usr/bin/env bash
# Where the CPU time of the server goes under load: builds the profiling profile, samples it with perf, prints the symbols
# that cost most, and leaves the samples in target/profile.data for `perf report` or `perf annotate`.
#
#   benchmarks/profile.sh [RPC] [CONNECTIONS] [STREAMS] [SECONDS]
#
# RPC: ModelInfer (default), ServerLive, or json for HTTP. SERVER=path profiles another binary, CALLERS=1 records call
# stacks too (slower), PYTHON=path names the Python that has onnxruntime and tritonclient.
set -euo pipefail

rpc=${1:-ModelInfer} connections=${2:-8} streams=${3:-64} seconds=${4:-10}
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
samples=4999
cd "$root"

if [[ -z ${SERVER:-} ]]; then
  cargo build --quiet --profile profiling --locked --package mlserve-server
  SERVER=${CARGO_TARGET_DIR:-$root/target}/profiling/mlserve-server
fi
folder=$(mktemp -d)
server=
finish() {
  [[ -z $server ]] || { kill -INT "$server" && wait "$server"; } 2> /dev/null || true
  rm -rf "$folder"
}
trap finish EXIT

# The request of the benchmark, and the library that serves it.
library=$(PYTHONPATH=benchmarks "$python" - "$folder" << 'TEXT'
import sys
from pathlib import Path
from figures import wire
from figures.cpu import TINY
from figures.load import wrk_script
from figures.setup import find_ort_library
folder = Path(sys.argv[1])
(folder / "ModelInfer").write_bytes(TINY.grpc_frame())
(folder / "ServerLive").write_bytes(wire.grpc_message(b""))
wrk_script(folder, "json", TINY.json_body(), {"content-type": "application/json"})
print(find_ort_library())
TEXT
)

MLSERVE_ORT_LIB=$library taskset -c 0 "$SERVER" serve benchmarks/models --http-port 0 --grpc-port 0 --metrics-port 0 \
  --ready-file "$folder/ready.json" > "$folder/log" 2>&1 &
server=$!
until [[ -s $folder/ready.json ]]; do
  kill -0 "$server" 2> /dev/null || { cat "$folder/log" >&2; exit 1; }
  sleep 0.05
done
address() { sed -nE "s/.*\"$1\": *\"([^\"]+)\".*/\1/p" "$folder/ready.json"; }

load() { # SECONDS
  if [[ $rpc == json ]]; then
    taskset -c 1 wrk -t 1 -c "$connections" -d "${1}s" -s "$folder/json.lua" "http://$(address http)/v2/models/tiny/infer"
  else
    taskset -c 1 h2load -D "$1" -c "$connections" -m "$streams" -t 1 -d "$folder/$rpc" -H 'content-type: application/grpc' \
      -H 'te: trailers' "http://$(address grpc)/inference.GRPCInferenceService/$rpc"
  fi
}

load 2 > /dev/null
stacks=()
[[ -z ${CALLERS:-} ]] || stacks=(--call-graph dwarf,16384)
load "$((seconds + 2))" > "$folder/load" &
client=$!
sleep 1
data=${CARGO_TARGET_DIR:-$root/target}/profile.data
perf record --quiet -e cpu-clock -F "$samples" "${stacks[@]}" -o "$data" -p "$server" -- sleep "$seconds" > /dev/null
wait "$client"
grep -E 'finished in|requests in|requests:' "$folder/load"
report() { # SORT LEAST-PERCENT
  perf report -i "$data" --no-inline --no-children -g none --sort "$1" --percent-limit "$2" --stdio 2> /dev/null |
    grep -E '^ +[0-9]' | sed -E 's/( +-)* *$//'
}
echo
echo "by library"
report dso 0.5
echo
echo "by crate, of the server's own code"
report dso,symbol 0 | grep mlserve-server | sed -E 's/^ +([0-9.]+)% .*\[\.\] [<&]*([a-zA-Z0-9_]+).*/\1 \2/' |
  awk '{ share[$2] += $1 } END { for (crate in share) if (share[crate] >= 0.5) printf "%9.2f%%  %s\n", share[crate], crate }' | sort -rn
echo
echo "by symbol"
report symbol,dso 0.4
