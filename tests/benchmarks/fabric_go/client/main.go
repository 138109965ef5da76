// The peer of our gateway client in the benchmarks: the official Go client, puts with so many in flight.
//
// Commits are learned as its documentation does it (-follow status: one CommitStatus call each) or from the filtered
// block stream (-follow blocks). Prints one JSON object: transactions, seconds, CPU seconds, latencies in ms.
package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"sort"
	"sync"
	"syscall"
	"time"

	"github.com/hyperledger/fabric-gateway/pkg/client"
	"github.com/hyperledger/fabric-gateway/pkg/hash"
	"github.com/hyperledger/fabric-gateway/pkg/identity"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

func cpu() float64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		log.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds()
}

// waiting holds who waits for the outcome of which transaction.
type waiting struct {
	mutex sync.Mutex
	known map[string]peer.TxValidationCode
	wants map[string]chan peer.TxValidationCode
}

func (w *waiting) saw(id string, code peer.TxValidationCode) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	if channel, ok := w.wants[id]; ok {
		channel <- code
		delete(w.wants, id)
		return
	}
	w.known[id] = code
}

func (w *waiting) outcome(id string) peer.TxValidationCode {
	w.mutex.Lock()
	if code, ok := w.known[id]; ok {
		delete(w.known, id)
		w.mutex.Unlock()
		return code
	}
	channel := make(chan peer.TxValidationCode, 1)
	w.wants[id] = channel
	w.mutex.Unlock()
	return <-channel
}

func main() {
	endpoint := flag.String("endpoint", "", "host:port of the peer")
	serverName := flag.String("server-name", "", "name in the peer's TLS certificate")
	tlsCA := flag.String("tls-ca", "", "PEM file")
	msp := flag.String("msp", "", "MSP id")
	certificate := flag.String("certificate", "", "PEM file")
	key := flag.String("key", "", "PEM file")
	channel := flag.String("channel", "", "")
	chaincode := flag.String("chaincode", "", "")
	count := flag.Int("count", 1000, "transactions")
	flight := flag.Int("in-flight", 64, "at once")
	size := flag.Int("bytes", 200, "of a value")
	follow := flag.String("follow", "status", "status or blocks")
	prefix := flag.String("prefix", "go", "of the keys")
	orgs := flag.String("endorsers", "", "comma separated MSP ids; the gateway's choice without")
	flag.Parse()

	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(must(os.ReadFile(*tlsCA)))
	connection := must(grpc.NewClient("dns:///"+*endpoint, grpc.WithTransportCredentials(credentials.NewClientTLSFromCert(pool, *serverName))))
	defer connection.Close()
	id := must(identity.NewX509Identity(*msp, must(identity.CertificateFromPEM(must(os.ReadFile(*certificate))))))
	sign := must(identity.NewPrivateKeySign(must(identity.PrivateKeyFromPEM(must(os.ReadFile(*key))))))
	gateway := must(client.Connect(id, client.WithSign(sign), client.WithHash(hash.SHA256), client.WithClientConnection(connection)))
	defer gateway.Close()
	network := gateway.GetNetwork(*channel)
	contract := network.GetContract(*chaincode)

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	seen := &waiting{known: map[string]peer.TxValidationCode{}, wants: map[string]chan peer.TxValidationCode{}}
	if *follow == "blocks" {
		blocks := must(network.FilteredBlockEvents(ctx))
		go func() {
			for block := range blocks {
				for _, tx := range block.GetFilteredTransactions() {
					seen.saw(tx.GetTxid(), tx.GetTxValidationCode())
				}
			}
		}()
	}
	var options []client.ProposalOption
	if *orgs != "" {
		var names []string
		for _, name := range bytes.Split([]byte(*orgs), []byte{','}) {
			names = append(names, string(name))
		}
		options = append(options, client.WithEndorsingOrganizations(names...))
	}
	value := bytes.Repeat([]byte{'v'}, *size)

	numbers := make(chan int)
	latencies := make([]float64, *count)
	invalid := make([]bool, *count)
	var workers sync.WaitGroup
	started, before := time.Now(), cpu()
	for range *flight {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for number := range numbers {
				begin := time.Now()
				argument := append([]byte(fmt.Sprintf("%s-%07d\x00", *prefix, number)), value...)
				proposal := must(contract.NewProposal("submit", append(options, client.WithBytesArguments(argument))...))
				transaction := must(proposal.Endorse())
				commit := must(transaction.Submit())
				if *follow == "blocks" {
					invalid[number] = seen.outcome(commit.TransactionID()) != peer.TxValidationCode_VALID
				} else {
					invalid[number] = !must(commit.Status()).Successful
				}
				latencies[number] = float64(time.Since(begin).Microseconds()) / 1000
			}
		}()
	}
	for number := range *count {
		numbers <- number
	}
	close(numbers)
	workers.Wait()
	seconds, used := time.Since(started).Seconds(), cpu()-before
	failed := 0
	for _, bad := range invalid {
		if bad {
			failed++
		}
	}
	sort.Float64s(latencies)
	must(0, json.NewEncoder(os.Stdout).Encode(map[string]any{
		"transactions": *count, "invalid": failed, "seconds": seconds, "cpu_s": used,
		"latency_ms": map[string]float64{"median": latencies[*count/2], "p95": latencies[*count*95/100], "max": latencies[*count-1]},
	}))
}
