// The peer of our shim in the benchmarks: the official Go shim, one put a transaction.
//
// Arguments: [b"submit", key NUL value]; the answer is an empty JSON object. The environment gives CHAINCODE_ID,
// CHAINCODE_ADDRESS and the PEM files CHAINCODE_KEY, CHAINCODE_CERTIFICATE, CHAINCODE_CLIENT_CA (all or none).
package main

import (
	"bytes"
	"log"
	"os"

	"github.com/hyperledger/fabric-chaincode-go/v2/shim"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
)

type putter struct{}

func (putter) Init(shim.ChaincodeStubInterface) *peer.Response { return shim.Success(nil) }

func (putter) Invoke(stub shim.ChaincodeStubInterface) *peer.Response {
	args := stub.GetArgs()
	if len(args) != 2 {
		return shim.Error("two arguments are needed: submit, key NUL value")
	}
	key, value, found := bytes.Cut(args[1], []byte{0})
	if !found {
		return shim.Error("the second argument is key NUL value")
	}
	if err := stub.PutState(string(key), value); err != nil {
		return shim.Error(err.Error())
	}
	return shim.Success([]byte("{}"))
}

func file(name string) []byte {
	path := os.Getenv(name)
	if path == "" {
		return nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		log.Fatalf("%s: %v", name, err)
	}
	return data
}

func main() {
	server := &shim.ChaincodeServer{
		CCID:    os.Getenv("CHAINCODE_ID"),
		Address: os.Getenv("CHAINCODE_ADDRESS"),
		CC:      putter{},
		TLSProps: shim.TLSProperties{
			Disabled:      os.Getenv("CHAINCODE_KEY") == "",
			Key:           file("CHAINCODE_KEY"),
			Cert:          file("CHAINCODE_CERTIFICATE"),
			ClientCACerts: file("CHAINCODE_CLIENT_CA"),
		},
	}
	if err := server.Start(); err != nil {
		log.Fatal(err)
	}
}
