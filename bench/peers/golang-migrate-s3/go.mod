module golang-migrate-s3

go 1.25.11

require (
	github.com/aws/aws-sdk-go v1.55.7
	github.com/golang-migrate/migrate/v4 v4.20.1
)

require (
	github.com/jmespath/go-jmespath v0.4.0 // indirect
	github.com/lib/pq v1.10.9 // indirect
)
