package injector

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// storeOf names the database, cache or broker that a port is one of, by its number, by its target's, or by a word of its
// name, its target's name or its appProtocol. It is empty for anything else.
func storeOf(p corev1.ServicePort) string {
	if store := storePort(p.Port); store != "" {
		return store
	}
	if p.TargetPort.Type == intstr.Int {
		if store := storePort(p.TargetPort.IntVal); store != "" {
			return store
		}
	}
	names := []string{p.Name, p.TargetPort.StrVal}
	if p.AppProtocol != nil {
		names = append(names, *p.AppProtocol)
	}
	for _, name := range names {
		for word := range strings.FieldsFuncSeq(strings.ToLower(name), func(r rune) bool { return strings.ContainsRune("-./_", r) }) {
			if store := storeName(word); store != "" {
				return store
			}
		}
	}
	return ""
}

// storePort is by the ports that these programs listen on unless told otherwise. What others use more is left out: 9000
// (ClickHouse, but also MinIO, SonarQube and Portainer), 8123 (ClickHouse and Home Assistant), 50000 (Db2 and Jenkins'
// agents), 7000 (Cassandra's peers) and 8080 to 8091 (CouchDB's, Couchbase's and others' consoles).
func storePort(n int32) string {
	switch n {
	case 5432, 5433, 6432:
		return "PostgreSQL or PgBouncer"
	case 3306, 33060:
		return "MySQL or MariaDB"
	case 1433:
		return "SQL Server"
	case 1521:
		return "Oracle Database"
	case 26257:
		return "CockroachDB"
	case 27017, 27018, 27019:
		return "MongoDB"
	case 9042, 9142, 9160:
		return "Cassandra or ScyllaDB"
	case 5984:
		return "CouchDB"
	case 7687:
		return "Neo4j"
	case 8086:
		return "InfluxDB"
	case 8529:
		return "ArangoDB"
	case 28015:
		return "RethinkDB"
	case 6379, 6380, 26379, 16379:
		return "Redis or Valkey"
	case 11211:
		return "Memcached"
	case 5701:
		return "Hazelcast"
	case 11222:
		return "Infinispan"
	case 2379, 2380:
		return "etcd"
	case 2181:
		return "ZooKeeper"
	case 9200, 9300:
		return "Elasticsearch or OpenSearch"
	case 8983:
		return "Solr"
	case 7700:
		return "Meilisearch"
	case 8108:
		return "Typesense"
	case 6333, 6334:
		return "Qdrant"
	case 19530:
		return "Milvus"
	case 9092, 9094:
		return "Kafka"
	case 9093:
		return "Kafka or Alertmanager"
	case 5671, 5672, 25672:
		return "RabbitMQ"
	case 4222, 6222:
		return "NATS"
	case 61613, 61616:
		return "ActiveMQ"
	case 1883, 8883:
		return "an MQTT broker"
	case 6650, 6651:
		return "Pulsar"
	case 8200, 8201:
		return "Vault or OpenBao" // which is sealed after each start
	case 8500, 8501:
		return "Consul"
	default:
		return ""
	}
}

// storeName is by the words that people name such ports with.
func storeName(word string) string {
	switch word {
	case "postgres", "postgresql", "pgsql", "pgbouncer":
		return "PostgreSQL or PgBouncer"
	case "mysql", "mysqlx", "mariadb":
		return "MySQL or MariaDB"
	case "mssql", "tds":
		return "SQL Server"
	case "mongo", "mongodb":
		return "MongoDB"
	case "cassandra", "cql", "scylla":
		return "Cassandra or ScyllaDB"
	case "cockroachdb", "couchdb", "influxdb", "clickhouse", "neo4j", "bolt", "etcd", "zookeeper", "hazelcast", "infinispan",
		"elasticsearch", "opensearch", "solr", "meilisearch", "typesense", "qdrant", "milvus":
		return "a database (" + word + ")"
	case "redis", "rediss", "valkey", "sentinel", "dragonfly", "keydb":
		return "Redis or Valkey"
	case "memcache", "memcached":
		return "Memcached"
	case "kafka", "amqp", "amqps", "rabbitmq", "nats", "stomp", "openwire", "mqtt", "mqtts", "pulsar":
		return "a message broker (" + word + ")"
	default:
		return ""
	}
}
