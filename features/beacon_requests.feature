Feature: Requests to the beacon API are answered while nodes die and return
  Requests take the path of calls: from primary to backup and home again, and in order when they had to wait. Long answers stream.

  @testnet
  Scenario: To the next primary, to the backup, and home step by step
    Given a primary consensus node lighthouse
    And a primary consensus node nimbus
    And a backup consensus node teku
    And the proxy runs
    And clients call without pause
    When lighthouse goes down
    Then calls go to nimbus
    When nimbus goes down
    Then calls go to teku
    When nimbus is well again
    Then calls go to nimbus
    When lighthouse is well again
    Then calls go to lighthouse
    And every call was answered

  @testnet
  Scenario: The operator takes a node out, and lets it in again
    Given a primary consensus node lighthouse
    And a backup consensus node teku
    And the proxy runs
    And clients call without pause
    When the operator cordons lighthouse
    Then calls go to teku
    And calls stay with teku for 300 ms
    When the operator uncordons lighthouse
    Then calls go to lighthouse
    And every call was answered

  Scenario: Requests in flight leave a node that goes down
    Given a primary consensus node lighthouse
    And a backup consensus node teku
    And the settings:
      | health.timeout | "5s" |
    And the proxy runs
    When lighthouse answers 3000 ms late
    And a call has reached lighthouse, which owes the answer
    And lighthouse goes down
    Then that call is answered by teku within 1500 ms

  Scenario: Requests in flight leave a node that hangs
    Given a primary consensus node lighthouse
    And a backup consensus node teku
    And the settings:
      | health.interval | "30s" |
      | health.timeout  | "30s" |
    And the proxy runs
    When lighthouse hangs
    And a call has reached lighthouse, which owes the answer
    Then that call is answered by teku within 3500 ms
    And lighthouse is found down: "does not answer in time"

  Scenario: A node that is only slow keeps its requests
    Given a primary consensus node lighthouse
    And a backup consensus node teku
    And the settings:
      | health.timeout | "5s" |
    And the proxy runs
    When lighthouse answers 1500 ms late
    And a call has reached lighthouse, which owes the answer
    Then that call is answered by lighthouse within 4000 ms
    And lighthouse is found up

  Scenario: Requests wait while all nodes are down
    Given a primary consensus node lighthouse
    And a backup consensus node teku
    And the proxy runs
    When lighthouse goes down
    And teku goes down
    Then lighthouse is found down
    And teku is found down
    When 12 calls come, one after the other
    And teku is well again
    Then every call that waited is answered by teku

  Scenario: Requests that wait go to the node that a reload brings
    Given a primary consensus node lighthouse
    And the proxy runs
    When lighthouse goes down
    Then lighthouse is found down
    When 3 calls come, one after the other
    And the operator replaces lighthouse by teku in the file and reloads
    Then the reload is applied
    And every call that waited is answered

  Scenario: The hold time is over
    Given a primary consensus node lighthouse
    And the settings:
      | calls.hold | "600ms" |
    And the proxy runs
    When lighthouse goes down
    Then lighthouse is found down
    When a client asks for /eth/v1/beacon/genesis
    Then the client gets the beacon API's error 503: "no node can serve"
    And the client is told to come back later
    And the answer took from 550 to 4000 ms
    When lighthouse is well again
    Then calls go to lighthouse

  Scenario: A complaint about the request goes back in the node's words
    Given a primary consensus node lighthouse
    And a backup consensus node teku
    And the proxy runs
    When a client asks for /eth/v1/beacon/headers/99999
    Then the client gets the beacon API's error 404: "Block not found: 99999"
    And teku has been asked for nothing but probes

  Scenario: A long state leaves no trace in memory
    Given a primary consensus node lighthouse
    And states of 64 MiB
    And the proxy runs as a process of its own
    When a client asks for /eth/v1/node/version
    Then a client gets a whole state, while the process grows by less than 8 MiB

  Scenario: Half a state is not taken for a whole one
    Given a primary consensus node lighthouse
    And a backup consensus node teku
    And states of 64 MiB
    And the proxy runs
    Then a client that has begun a state when lighthouse goes down sees that it is not whole
