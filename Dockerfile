# One image for every way to run lockkeeper: `serve` (the default), `up`, `plan`, `verify`…
#
#   docker build -t lockkeeper .
#   docker run --read-only -v ./settings:/etc/lockkeeper:ro -p 8080:8080 lockkeeper
#   docker run --read-only --user 12345:12345 -e DATABASE_URL lockkeeper up --source s3://bucket/orders --trust /keys/prod.pub
#
# Runs as any user id, on a read-only root, and writes nowhere.

FROM docker.io/library/node:24-bookworm-slim AS build
WORKDIR /build
COPY package.json package-lock.json .npmrc ./
# Neither the compiler nor any dependency needs its install script; without them nothing of theirs runs while building.
RUN npm ci --ignore-scripts
COPY tsconfig.json ./
COPY src ./src
RUN npm run build
# For pipelines, which run a shell in the image and call `lockkeeper` themselves.
RUN mkdir bin && printf '#!/bin/sh\nexec node /app/dist/bin/cli.js "$@"\n' >bin/lockkeeper && chmod 755 bin/lockkeeper

FROM docker.io/library/node:24-bookworm-slim AS dependencies
WORKDIR /build
COPY package.json package-lock.json .npmrc ./
# valibot may be used with TypeScript, which makes npm count the compiler as optional, not only as ours.
RUN npm ci --omit=dev --omit=optional --ignore-scripts

FROM docker.io/library/node:24-bookworm-slim
WORKDIR /app
ENV NODE_ENV=production
# In a container, loopback would be nobody's. Another address: this variable, or --listen.
ENV LOCKKEEPER_LISTEN=0.0.0.0:8080
EXPOSE 8080
# Where a ConfigMap or a volume is mounted; paths in the file are relative to it.
ENV LOCKKEEPER_CONFIG=/etc/lockkeeper/lockkeeper.yaml
COPY --from=dependencies /build/node_modules ./node_modules
COPY --from=build /build/dist ./dist
COPY --from=build /build/bin /usr/local/bin
COPY package.json LICENSE ./
# Not root, even where nobody says so. Any other id works as well: nothing here belongs to this one.
USER 65532:65532
ENTRYPOINT ["node", "/app/dist/bin/cli.js"]
CMD ["serve"]
