# Starts the program once for each pair of a database and a bucket, to where it would connect: nothing answers at port 1.
# Each start loads what such a start needs, and Node keeps how it was compiled ($NODE_COMPILE_CACHE).

start() {
  node /app/cli.js "$@" >/dev/null 2>&1 || test $? -eq 31
}

start keygen --out key
for database in postgres://warm@127.0.0.1:1/warm 'mongodb://127.0.0.1:1/warm?serverSelectionTimeoutMS=10'; do
  start wait --timeout 0 --min 1 --stream warm --database "$database"
  for bucket in s3://warm/warm gs://warm/warm; do
    start init --database-wait 0 --stream warm --database "$database" --source "$bucket" --trust key.pub
  done
done
