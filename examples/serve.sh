#!/usr/bin/env bash
# Serves the example models, sends one real request, and goes on serving until Ctrl-C: `make serve`.
# Usage: examples/serve.sh PATH-OF-MLSERVE
set -euo pipefail

mlserve=$1
here=$(cd "$(dirname "$0")" && pwd)
folder=$(mktemp -d)
ready=$folder/ready.json

# Job control gives the server a process group of its own: Ctrl-C reaches this script alone, which stops the server once
# (a second signal would cut its requests off).
set -m
"$mlserve" serve "$here/models" --http-port "${HTTP_PORT:-8000}" --grpc-port "${GRPC_PORT:-8001}" \
  --metrics-port "${METRICS_PORT:-8002}" --ready-file "$ready" &
server=$!
set +m
trap 'kill -INT "$server" 2> /dev/null || true' INT TERM
trap 'rm -rf "$folder"' EXIT

until [[ -s $ready ]]; do
  kill -0 "$server" 2> /dev/null || { wait "$server"; exit 1; }
  sleep 0.05
done
address() { sed -nE "s/.*\"$1\": *\"([^\"]+)\".*/\1/p" "$ready"; }

echo
echo "A request: four digits that the model was not trained on"
"$mlserve" infer digits "$here/requests/digits.json" --url "$(address grpc)"
cat << TEXT

The true labels are in examples/requests/digits.expected.json. Send your own:

  $mlserve infer digits examples/requests/digits.npz --url $(address grpc)
  $mlserve infer tabular examples/requests/tabular.json --url http://$(address http)
  curl -d @examples/requests/digits.json http://$(address http)/v2/models/digits/infer

Or from Python:

  from mlserve import Client
  Client("$(address grpc)").infer("digits", [[0.0] * 64])["label"]

In a browser: http://$(address http)/docs lists the models and sends requests.

Ctrl-C stops the server.
TEXT

# A trapped signal ends the first wait early; the server itself ends a little later.
status=0
wait "$server" || status=$?
if kill -0 "$server" 2> /dev/null; then
  status=0
  wait "$server" || status=$?
fi
exit "$status"
