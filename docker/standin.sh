#!/usr/bin/env bash
# A Docker engine and substitute base images for `docker/prove.sh`, if no image registry can be reached.
#
#   eval "$(docker/standin.sh /var/tmp/standin)"     starts it, sets DOCKER_HOST and the like
#   docker/prove.sh
#   kill "$(cat /var/tmp/standin/dockerd.pid)"       ends it; Docker's iptables rules stay
#
# As root, on Debian 12, from Debian's archive alone: dockerd, containerd, compose, buildx and Prometheus
# are unpacked, not installed, and listen on a socket of their own. The base images are Debian 12 with
# its Python 3.11 and Debian's Prometheus, under the names that the Dockerfiles and the compose file
# use; the substitute of NVIDIA's image lacks TensorRT. ARM64=1 makes the Python image for 64-bit ARM
# too, which needs the packages qemu-user-static and binfmt-support.
set -euo pipefail

work=$(realpath -m "${1:?the folder to work in}")
suite=${SUITE:-sid}  # its compose and Prometheus are newer than Debian 12's
# shellcheck disable=SC2016  # apt's own variable
archive=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Codename: bookworm' |
  sed -n 1p)
mkdir -p "$work"
exec 3>&1 1>"$work/standin.log" 2>&1  # the lines to evaluate go to 3
trap 'tail -5 "$work/standin.log" >&3' ERR

for tool in debootstrap iptables busybox; do
  command -v $tool || missing=yes
done
if [ -n "${missing:-}" ]; then
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends debootstrap iptables busybox-static
fi

unpack() {  # unpack FOLDER APT-OPTIONS... -- PACKAGES...
  local to=$1 options=()
  shift
  while [ "$1" != -- ]; do options+=("$1"); shift; done
  shift
  mkdir -p "$work/debs" "$to"
  for package; do
    (cd "$work/debs" && rm -f "${package}"_*.deb && apt-get "${options[@]}" download "$package")
    dpkg -x "$work/debs/$package"_*.deb "$to"
  done
}

engine=$work/engine
if [ ! -d "$engine" ]; then
  apt=$work/apt
  mkdir -p "$apt/lists/partial" "$apt/archives/partial"
  keys=/usr/share/keyrings/debian-archive-keyring.gpg
  echo "deb [signed-by=$keys] $archive $suite main" > "$apt/sources.list"
  newer=(-o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=/dev/null
    -o "Dir::State::lists=$apt/lists" -o "Dir::Cache=$apt")
  apt-get "${newer[@]}" update -qq
  unpack "$engine" "${newer[@]}" -- docker.io docker-cli containerd docker-compose docker-buildx
  unpack "$engine" -- runc  # linked with this system's C library
  unpack "$work/prometheus" "${newer[@]}" -- prometheus
  mkdir -p "$work/config/cli-plugins"
  cp "$engine"/usr/libexec/docker/cli-plugins/* "$work/config/cli-plugins"
fi

export PATH=$engine/usr/sbin:$engine/usr/bin:$PATH
export DOCKER_HOST=unix://$work/docker.sock DOCKER_CONFIG=$work/config
if ! docker info >/dev/null; then
  echo '{}' > "$work/daemon.json"
  setsid nohup dockerd --config-file "$work/daemon.json" --data-root "$work/data" \
    --exec-root "$work/exec" --pidfile "$work/dockerd.pid" -H "$DOCKER_HOST" --group root \
    > "$work/dockerd.log" 2>&1 3>&- &
  for _ in $(seq 60); do docker info >/dev/null && break; sleep 0.5; done
  docker info
fi

python_image() {  # python_image ARCHITECTURE TAG
  local root=$work/root-$1
  if ! docker image inspect "$2"; then
    rm -rf "$root"
    debootstrap --arch "$1" --variant=minbase \
      --include=python3,python3-venv,python3-pip,ca-certificates,netbase,tzdata bookworm "$root" "$archive"
    # As in the original image: Python in /usr/local, and pip may install.
    rm -f "$root"/usr/lib/python3.*/EXTERNALLY-MANAGED "$root"/var/cache/apt/archives/*.deb
    rm -rf "$root"/var/lib/apt/lists/*
    ln -s /usr/bin/python3 "$root/usr/local/bin/python3"
    ln -s /usr/bin/python3 "$root/usr/local/bin/python"
    cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"  # for a package index of your own
    tar -C "$root" -c . | docker import --platform "linux/$1" \
      -c 'ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin' - "$2"
    rm -rf "$root"
  fi
}

python_image amd64 python:3.11-slim-bookworm
docker tag python:3.11-slim-bookworm nvcr.io/nvidia/tensorrt:25.06-py3
if [ -n "${ARM64:-}" ]; then
  python_image arm64 python:3.11-arm64
fi

cp "$(command -v busybox)" "$work/prometheus/"
docker build -t prom/prometheus:v3.13.3 -f - "$work/prometheus" <<'DOCKERFILE'
FROM python:3.11-slim-bookworm
COPY usr/bin/prometheus /bin/prometheus
COPY busybox /usr/local/bin/wget
RUN install -d -o 65534 -g 65534 /prometheus && install -d /etc/prometheus
USER 65534
WORKDIR /prometheus
ENTRYPOINT ["/bin/prometheus"]
DOCKERFILE

cat >&3 <<EXPORTS
export PATH='$engine/usr/sbin:$engine/usr/bin':"\$PATH" DOCKER_HOST='$DOCKER_HOST' DOCKER_CONFIG='$DOCKER_CONFIG'
EXPORTS
