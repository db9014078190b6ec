# One image for every way to run lockkeeper: `serve` (the default), `init`, `up`, `wait`, `work`, `publish`…
#
#   docker build -t lockkeeper .
#   docker run --read-only -v ./settings:/etc/lockkeeper:ro -p 8080:8080 lockkeeper
#   docker run --read-only --user 12345:12345 -e DATABASE_URL lockkeeper init --source s3://bucket/orders --trust /keys/prod.pub
#
# Runs as any user id, on a read-only root, and writes nowhere.

FROM docker.io/library/node:24-bookworm-slim AS build
WORKDIR /build
COPY package.json package-lock.json .npmrc ./
# Neither the bundler, which has a lock of its own, nor any dependency needs its install script; without them nothing of
# theirs runs while building.
RUN npm ci --omit=dev --ignore-scripts
COPY infra/bundle ./infra/bundle
RUN npm ci --ignore-scripts --prefix infra/bundle
COPY LICENSE ./
COPY src ./src
COPY infra/image ./infra/image
COPY infra/release/sbom.ts ./infra/release/
# What is bundled can no longer be found by its package files: scanners read the bill of materials instead.
RUN node infra/image/bundle.ts /app && node infra/release/sbom.ts >/app/lockkeeper.cdx.json

# The code as V8 compiled it when it was first needed. It is found by this user id only; to others it makes no difference.
FROM docker.io/library/node:24-bookworm-slim AS warm
COPY --from=build /app /app
RUN mkdir /app/compiled && chown 65532:65532 /app/compiled
USER 65532:65532
WORKDIR /tmp
ENV NODE_COMPILE_CACHE=/app/compiled
COPY infra/image/warm.sh ./
RUN sh -e warm.sh

FROM docker.io/library/node:24-bookworm-slim
LABEL org.opencontainers.image.title="lockkeeper" \
      org.opencontainers.image.description="Database migrations as signed releases in a bucket, applied to PostgreSQL and MongoDB under a lease" \
      org.opencontainers.image.licenses="Apache-2.0"
# Nothing here installs packages, and a scanner should not have to look at what does.
RUN rm -rf /usr/local/lib/node_modules /usr/local/bin/npm /usr/local/bin/npx /usr/local/bin/corepack \
      /usr/local/bin/yarn /usr/local/bin/yarnpkg /opt/yarn-*
# For pipelines, which run a shell in the image and call it by its name.
RUN printf '#!/bin/sh\nexec node /app/cli.js "$@"\n' >/usr/local/bin/lockkeeper && chmod 755 /usr/local/bin/lockkeeper
COPY --from=build /app /app
COPY --from=warm /app/compiled /app/compiled
ENV NODE_ENV=production
ENV NODE_COMPILE_CACHE=/app/compiled
# In a container, loopback would be nobody's. Another address: this variable, or --listen.
ENV LOCKKEEPER_LISTEN=0.0.0.0:8080
EXPOSE 8080
# Where a ConfigMap or a volume is mounted; paths in the file are relative to it.
ENV LOCKKEEPER_CONFIG=/etc/lockkeeper/lockkeeper.yaml
WORKDIR /app
# Not root, even where nobody says so. Any other id works as well: nothing here belongs to this one but the compiled code.
USER 65532:65532
ENTRYPOINT ["node", "/app/cli.js"]
CMD ["serve"]
