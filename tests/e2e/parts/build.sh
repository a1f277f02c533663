#!/usr/bin/env bash
# Builds the parts of a Kubernetes control plane that are not here yet into bin/ beside this file; `make e2e-parts` runs it.
# Each folder is a Go module that pins one program. Needs Go 1.26 and the module proxy; the first time takes ten minutes
# on two cores and 5 GB in Go's caches, a rebuild half a minute. A failed download fails the build.
set -euo pipefail
cd "$(dirname "$0")"

command -v go >/dev/null || { echo "e2e-parts: Go is not on PATH; install Go 1.26 or newer (https://go.dev/dl)" >&2; exit 1; }

# Two compilers at a time, each with a bound on its heap: the machine stays usable meanwhile.
export GOFLAGS="-buildvcs=false -trimpath -p=2 ${GOFLAGS:-}" GOMEMLIMIT="${GOMEMLIMIT:-2GiB}" CGO_ENABLED=0

# build NAME PACKAGE: what bin/NAME was built from is kept beside it, so that a cache of another commit is not trusted.
build() {
  local name=$1 package=$2 wanted version
  wanted=$(cat "$name/go.mod" "$name/go.sum" build.sh | sha256sum; go version)
  if [[ -x bin/$name && -f bin/.$name.from && $(<"bin/.$name.from") == "$wanted" ]]; then return; fi
  echo "e2e-parts: building $name"
  mkdir -p bin
  # Without its version in it, kube-apiserver answers /version with v0.0.0.
  version=$(cd "$name" && go list -f '{{.Module.Version}}' "$package")
  (cd "$name" && nice -n 10 go build -o "../bin/.$name.new" \
    -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$version -X sigs.k8s.io/kwok/pkg/consts.Version=$version" "$package")
  mv "bin/.$name.new" "bin/$name"
  printf '%s\n' "$wanted" > "bin/.$name.from"
}

build etcd go.etcd.io/etcd/server/v3
build kube-apiserver k8s.io/kubernetes/cmd/kube-apiserver
build kube-controller-manager k8s.io/kubernetes/cmd/kube-controller-manager
build kwok sigs.k8s.io/kwok/cmd/kwok
