// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// store is a program that keeps other programs' data: a database, a cache, a message broker or a store of secrets.
type store struct {
	name  string
	ports []int32  // default ports
	words []string // usual names of these ports
}

// stores returns the known stores with their ports. It omits ports that other programs use more often: 9000 (ClickHouse, but also
// MinIO, SonarQube and Portainer), 8123 (ClickHouse and Home Assistant), 50000 (Db2 and Jenkins' agents), 7000 (Cassandra's peers)
// and 8080 to 8091 (the consoles of Couchbase and many others).
func stores() []store {
	return []store{
		{"PostgreSQL or PgBouncer", []int32{5432, 5433, 6432}, []string{"postgres", "postgresql", "pgsql", "pgbouncer"}},
		{"MySQL or MariaDB", []int32{3306, 33060}, []string{"mysql", "mysqlx", "mariadb"}},
		{"SQL Server", []int32{1433}, []string{"mssql", "tds"}},
		{"Oracle Database", []int32{1521}, []string{"oracle"}},
		{"CockroachDB", []int32{26257}, []string{"cockroachdb"}},
		{"MongoDB", []int32{27017, 27018, 27019}, []string{"mongo", "mongodb"}},
		{"Cassandra or ScyllaDB", []int32{9042, 9142, 9160}, []string{"cassandra", "cql", "scylla"}},
		{"CouchDB", []int32{5984}, []string{"couchdb"}},
		{"Neo4j", []int32{7687}, []string{"neo4j", "bolt"}},
		{"InfluxDB", []int32{8086}, []string{"influxdb"}},
		{"ArangoDB", []int32{8529}, []string{"arangodb"}},
		{"RethinkDB", []int32{28015}, []string{"rethinkdb"}},
		{"ClickHouse", nil, []string{"clickhouse"}},
		{"Redis or Valkey", []int32{6379, 6380, 16379, 26379}, []string{"redis", "rediss", "valkey", "sentinel", "keydb", "dragonfly"}},
		{"Memcached", []int32{11211}, []string{"memcache", "memcached"}},
		{"Hazelcast", []int32{5701}, []string{"hazelcast"}},
		{"Infinispan", []int32{11222}, []string{"infinispan"}},
		{"etcd", []int32{2379, 2380}, []string{"etcd"}},
		{"ZooKeeper", []int32{2181}, []string{"zookeeper"}},
		{"Elasticsearch or OpenSearch", []int32{9200, 9300}, []string{"elasticsearch", "opensearch"}},
		{"Solr", []int32{8983}, []string{"solr"}},
		{"Meilisearch", []int32{7700}, []string{"meilisearch"}},
		{"Typesense", []int32{8108}, []string{"typesense"}},
		{"Qdrant", []int32{6333, 6334}, []string{"qdrant"}},
		{"Milvus", []int32{19530}, []string{"milvus"}},
		{"Kafka", []int32{9092, 9094}, []string{"kafka"}},
		{"Kafka or Alertmanager", []int32{9093}, nil},
		{"RabbitMQ", []int32{5671, 5672, 25672}, []string{"amqp", "amqps", "rabbitmq"}},
		{"NATS", []int32{4222, 6222}, []string{"nats"}},
		{"ActiveMQ", []int32{61613, 61616}, []string{"stomp", "openwire"}},
		{"an MQTT broker", []int32{1883, 8883}, []string{"mqtt", "mqtts"}},
		{"Pulsar", []int32{6650, 6651}, []string{"pulsar"}},
		{"Vault or OpenBao", []int32{8200, 8201}, nil}, // it has to be unsealed after each start
		{"Consul", []int32{8500, 8501}, nil},
	}
}

// storeOf returns the name of the store behind a port; empty if the port looks like none. It compares the numbers of the port and the
// target port, and the words of the port's name, the target port's name and the appProtocol.
func storeOf(p corev1.ServicePort) string {
	numbers, words := []int32{p.Port}, storeWords(p.Name)
	if p.TargetPort.Type == intstr.Int {
		numbers = append(numbers, p.TargetPort.IntVal)
	}
	words = append(words, storeWords(p.TargetPort.StrVal)...)
	if p.AppProtocol != nil {
		words = append(words, storeWords(*p.AppProtocol)...)
	}
	known := stores()
	i := slices.IndexFunc(known, func(s store) bool {
		return slices.ContainsFunc(numbers, func(n int32) bool { return slices.Contains(s.ports, n) }) ||
			slices.ContainsFunc(words, func(w string) bool { return slices.Contains(s.words, w) })
	})
	if i < 0 {
		return ""
	}
	return known[i].name
}

func storeWords(name string) []string {
	return strings.FieldsFunc(strings.ToLower(name), func(r rune) bool { return strings.ContainsRune("-./_", r) })
}
